"""What PyTorch's caching allocator reserves for a sequence of births and deaths. No torch.

The rules are those of c10/cuda/CUDACachingAllocator.cpp: requests are rounded up to 512 bytes
and served from the smallest free block that is large enough, the lowest address first; else a
segment is taken from the driver. A freed block joins its free neighbours of the same segment,
and stays reserved.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

from autotrain.units import MIB

ROUND = 512
SMALL_REQUEST = MIB  # up to this, the small pool
SMALL_SEGMENT = 2 * MIB
LARGE_REQUEST = 10 * MIB  # from this on, a segment of its own size
LARGE_SEGMENT = 20 * MIB
LARGE_ROUND = 2 * MIB


class Block:
    """A stretch of a segment. `before` and `after` are its neighbours there."""

    __slots__ = ("address", "after", "before", "free", "large", "size")

    def __init__(self, address: int, size: int, large: bool) -> None:
        self.address, self.size, self.large = address, size, large
        self.free = True
        self.before: Block | None = None
        self.after: Block | None = None


class Allocator:
    """One device's caching allocator. `cap` bounds what it may reserve, in bytes.

    `expandable`: PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True; each pool is then one
    segment that grows at its end, by 2 MiB (small) or 20 MiB (large).
    """

    def __init__(self, cap: float = float("inf"), *, expandable: bool = False) -> None:
        self.cap, self.expandable = cap, expandable
        self.reserved = self.reserved_peak = 0
        self.allocated = self.allocated_peak = 0
        self.retries = 0  # times that cached segments were given back to the driver
        # Free blocks by pool (small, large), sorted by size and address.
        self.free: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        self.blocks: dict[int, Block] = {}  # the free ones, by address
        self.ends: list[Block | None] = [None, None]  # where an expandable segment grows
        self.next_address = 0

    def run(self, tape: Iterable[int]) -> bool:
        """Carry out a tape (see `schema.StepTrace`); False where it ran out under the cap."""
        numbered: list[Block | None] = []
        for entry in tape:
            if entry < 0:
                block = numbered[-1 - entry]
                assert block is not None, "freed twice"
                numbered[-1 - entry] = None
                self.release(block)
            else:
                block = self.take(entry)
                if block is None:
                    return False
                numbered.append(block)
        return True

    def take(self, request: int) -> Block | None:
        """Serve one request of that many bytes; None where it is out of memory."""
        size = -(-request // ROUND) * ROUND or ROUND
        large = size > SMALL_REQUEST
        free = self.free[large]
        at = bisect_left(free, (size, -1))
        if at < len(free):
            block = self.blocks.pop(free.pop(at)[1])
        else:
            found = self._grow(size, large) if self.expandable else self._segment(size, large)
            if found is None:
                return None
            block = found
        block.free = False
        rest = block.size - size
        if rest > SMALL_REQUEST or (rest >= ROUND and (self.expandable or not large)):
            self._split(block, size)
        self.allocated += block.size
        self.allocated_peak = max(self.allocated_peak, self.allocated)
        return block

    def release(self, block: Block) -> None:
        """Free a block: it joins its free neighbours and stays reserved."""
        self.allocated -= block.size
        before, after = block.before, block.after
        if before is not None and before.free:
            self._withdraw(before)
            before.size += block.size
            before.after = after
            if after is not None:
                after.before = before
            if self.expandable:
                self._moved_end(block, before)
            block = before
        if after is not None and after.free:
            self._withdraw(after)
            block.size += after.size
            block.after = after.after
            if after.after is not None:
                after.after.before = block
            if self.expandable:
                self._moved_end(after, block)
        block.free = True
        self._offer(block)

    def _offer(self, block: Block) -> None:
        insort(self.free[block.large], (block.size, block.address))
        self.blocks[block.address] = block

    def _withdraw(self, block: Block) -> None:
        free = self.free[block.large]
        del free[bisect_left(free, (block.size, block.address))]
        del self.blocks[block.address]

    def _split(self, block: Block, size: int) -> None:
        """Keep the front, offer the rest."""
        rest = Block(block.address + size, block.size - size, block.large)
        rest.before, rest.after = block, block.after
        if block.after is not None:
            block.after.before = rest
        block.after, block.size = rest, size
        if self.expandable:
            self._moved_end(block, rest)
        self._offer(rest)

    def _moved_end(self, old: Block, new: Block) -> None:
        if self.ends[old.large] is old:
            self.ends[old.large] = new

    def _reserve(self, size: int) -> bool:
        """Ask the driver; at the cap, once more after giving back what is wholly free."""
        if self.reserved + size > self.cap:
            self.retries += 1
            self._give_back()
            if self.reserved + size > self.cap:
                return False
        self.reserved += size
        self.reserved_peak = max(self.reserved_peak, self.reserved)
        return True

    def _segment(self, size: int, large: bool) -> Block | None:
        if not large:
            whole = SMALL_SEGMENT
        elif size < LARGE_REQUEST:
            whole = LARGE_SEGMENT
        else:
            whole = -(-size // LARGE_ROUND) * LARGE_ROUND
        if not self._reserve(whole):
            return None
        block = Block(self.next_address, whole, large)
        self.next_address += whole
        return block

    def _grow(self, size: int, large: bool) -> Block | None:
        """Make the last block of an expandable segment large enough."""
        page = LARGE_SEGMENT if large else SMALL_SEGMENT
        end = self.ends[large]
        have = end.size if end is not None and end.free else 0
        more = -(-(size - have) // page) * page
        if not self._reserve(more):
            return None
        if self.ends[large] is not end:  # it was given back to make room
            self.reserved -= more
            return self._grow(size, large)
        if end is not None and end.free:
            self._withdraw(end)
            end.size += more
            return end
        # The pools' address spaces never meet.
        start = end.address + end.size if end is not None else (large << 60)
        block = Block(start, more, large)
        block.before = end
        if end is not None:
            end.after = block
        self.ends[large] = block
        return block

    def _give_back(self) -> None:
        """Return every wholly free segment to the driver."""
        for block in list(self.blocks.values()):
            whole = block.before is None and block.after is None
            if not self.expandable and whole:
                self._withdraw(block)
                self.reserved -= block.size
            elif self.expandable and self.ends[block.large] is block:
                self._withdraw(block)
                self.reserved -= block.size
                self.ends[block.large] = block.before
                if block.before is not None:
                    block.before.after = None
