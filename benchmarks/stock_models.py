"""How many models of well-known collections trace as they are, and how each was traced.

python benchmarks/stock_models.py [--group NAME] [--only NAME ...] [--dtype bf16] [--real]

Every model is a `Task` that is opened and traced at a micro_batch of 2, in this process. `fake`:
traced without data; `concrete`: the step had to run for real; `refused`: what the error says.
transformers and timm are not needed by autotrain itself: install them to trace theirs.
`--real` also runs the same step for real, and says by how much the peaks differ.
"""

import argparse
import gc
import resource
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import torch
import torchaudio
import torchvision
from torch import nn
from torch.nn import functional

from autotrain import Loss, Task
from autotrain.errors import AutotrainError
from autotrain.probe.model import ModelTracer

VOCABULARY = 1000


class Drawn(torch.utils.data.Dataset):
    """64 samples, each drawn by `draw(index)`."""

    def __init__(self, draw):
        self.draw = draw

    def __len__(self):
        return 64

    def __getitem__(self, index):
        return self.draw(index)


def length(index, least, most):
    """Lengths that differ, the longest among the first."""
    return most - (index * 7) % (most - least) if index else most


# --- torchvision ---------------------------------------------------------------------------


def logits_of(out):
    """The logits, of models that also return a dict or a tuple (auxiliary heads)."""
    if isinstance(out, dict):
        return out["out"]
    return out[0] if isinstance(out, tuple | list) else out


def class_loss(model, batch):
    images, labels = batch
    total = functional.cross_entropy(logits_of(model(images)), labels, reduction="sum")
    return Loss(total=total, weight=labels.numel())


def pictures(build, *shape, classes=10):
    def draw(_):
        return torch.randn(*shape), torch.randint(classes, ())

    return Task(model=build, train=Drawn(draw), loss=class_loss)


def segmentation(build):
    def draw(_):
        return torch.randn(3, 224, 224), torch.randint(21, (224, 224))

    return Task(model=build, train=Drawn(draw), loss=class_loss)


def boxes(index, **more):
    """A picture with 1 to 4 objects in it."""
    count = 1 + index % 4
    corner = torch.rand(count, 2) * 100
    target = {
        "boxes": torch.cat([corner, corner + 20 + torch.rand(count, 2) * 80], 1),
        "labels": torch.randint(1, 3, (count,)),
        **{name: make(count) for name, make in more.items()},
    }
    return torch.rand(3, 240, 320), target


def listed(samples):
    return [s[0] for s in samples], [s[1] for s in samples]


def detection_loss(model, batch):
    images, targets = batch
    if not model.training:
        return Loss(total=torch.zeros(()), weight=float(len(model(images))))
    return Loss(total=sum(model(images, targets).values()) * len(images), weight=len(images))


def detection(build, name):
    more = {}
    if "mask" in name:
        more["masks"] = lambda n: torch.randint(2, (n, 240, 320), dtype=torch.uint8)
    if "keypoint" in name:
        more["keypoints"] = lambda n: torch.rand(n, 17, 3) * 100 // 1
    draw = partial(boxes, **more)
    return Task(model=build, train=Drawn(draw), loss=detection_loss, collate=listed)


def flow_loss(model, batch):
    first, second, flow = batch
    total = sum((out - flow).abs().sum() for out in model(first, second))
    return Loss(total=total, weight=flow.numel())


def flow(build):
    def draw(_):
        return torch.randn(3, 128, 128), torch.randn(3, 128, 128), torch.randn(2, 128, 128)

    return Task(model=build, train=Drawn(draw), loss=flow_loss)


SIDES = {"inception_v3": 299, "efficientnet_v2_l": 480, "efficientnet_v2_m": 480}


def torchvision_task(name):
    make = torchvision.models.get_model_builder(name)
    if "rcnn" in name or name.startswith(("fcos", "retinanet", "ssd")):
        return detection(partial(make, weights=None, weights_backbone=None, num_classes=3), name)
    if name.startswith(("deeplab", "fcn", "lraspp")):
        return segmentation(partial(make, weights=None, weights_backbone=None))
    if name.startswith("raft"):
        return flow(partial(make, weights=None))
    build = partial(make, weights=None, num_classes=10)
    if name.startswith(("inception", "googlenet")):
        build = partial(build, init_weights=True)
    if name in torchvision.models.list_models(torchvision.models.video):
        return pictures(build, 3, 16, *((224, 224) if name[:4] in ("mvit", "s3d") else (112, 112)))
    side = SIDES.get(name, 224)
    return pictures(build, 3, side, side)


def torchvision_names():
    """All but the quantized ones, which cannot be trained."""
    return [n for n in torchvision.models.list_models() if not n.startswith("quantized")]


# --- torchaudio ----------------------------------------------------------------------------


def padded(samples):
    """[(frames, targets)] -> frames, their lengths, targets, their lengths."""
    frames, targets = zip(*samples, strict=True)
    pad = partial(nn.utils.rnn.pad_sequence, batch_first=True)
    sizes = [torch.tensor([len(x) for x in each]) for each in (frames, targets)]
    return pad(frames), sizes[0], pad(targets), sizes[1]


def clips(*width, least=80, most=120, least_words=4, most_words=12, words=28):
    def draw(index):
        count = length(index, least_words, most_words)
        return torch.randn(length(index, least, most), *width), torch.randint(1, words, (count,))

    return Drawn(draw)


def ctc(log_probs, lengths, targets, target_lengths):
    total = functional.ctc_loss(
        log_probs.transpose(0, 1), targets, lengths, target_lengths, reduction="sum"
    )
    return Loss(total=total, weight=len(targets))


class Headed(nn.Module):
    """A torchaudio encoder with a head of 28 classes."""

    def __init__(self, encoder, width):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(width, 28)


def encoder_task(build, width, **data):
    def loss(model, batch):
        frames, lengths, targets, target_lengths = batch
        out, lengths = model.encoder(frames, lengths)
        return ctc(model.head(out).log_softmax(-1), lengths, targets, target_lengths)

    return Task(
        model=lambda: Headed(build(), width), train=clips(**data) if data else clips(80),
        loss=loss, collate=padded,
    )  # fmt: skip


def wave_task(build, width, masks=True):
    """wav2vec 2.0, HuBERT, WavLM (which takes no lengths): waveforms of 0.7 to 1 s."""

    def loss(model, batch):
        waves, lengths, targets, target_lengths = batch
        out, lengths = model.encoder(waves, lengths if masks else None)
        if lengths is None:
            lengths = torch.full((len(out),), out.shape[1])
        return ctc(model.head(out).log_softmax(-1), lengths, targets, target_lengths)

    data = clips(least=11000, most=16000)
    return Task(model=lambda: Headed(build(), width), train=data, loss=loss, collate=padded)


def hubert_pretrain():
    def loss(model, batch):
        waves, lengths, *_ = batch
        labels = torch.zeros(len(waves), waves.shape[1] // 320 - 1, dtype=torch.int64)
        masked, unmasked, penalty = model(waves, labels, lengths)
        total = masked.logsumexp(-1).sum() + unmasked.logsumexp(-1).sum() + penalty
        return Loss(total=total, weight=len(waves))

    build = partial(torchaudio.models.hubert_pretrain_base, num_classes=100)
    return Task(model=build, train=clips(least=15999, most=16000), loss=loss, collate=padded)


def framewise(build, *shape, transform=lambda out: out):
    """Models that map a tensor to log-probabilities [batch, time, classes]."""

    def loss(model, batch):
        inputs, targets = batch
        out = transform(model(inputs)).log_softmax(-1)
        lengths = torch.full((len(out),), out.shape[1])
        return ctc(out, lengths, targets, torch.full((len(out),), targets.shape[1]))

    def draw(_):
        return torch.randn(*shape), torch.randint(1, 28, (6,))

    return Task(model=build, train=Drawn(draw), loss=loss)


def separation(build, channels, samples, sources):
    def loss(model, batch):
        mixed, parts = batch
        total = (model(mixed) - parts).square().sum()
        return Loss(total=total, weight=parts.numel())

    def draw(_):
        return torch.randn(channels, samples), torch.randn(*sources, samples)

    return Task(model=build, train=Drawn(draw), loss=loss)


def tacotron2():
    def collate(samples):
        samples = sorted(samples, key=lambda s: -len(s[1]))
        mels, lengths, words, word_lengths = padded(samples)
        return words, word_lengths, mels.transpose(1, 2), lengths

    def loss(model, batch):
        words, word_lengths, mels, lengths = batch
        before, after, gates, _ = model(words, word_lengths, mels, lengths)
        total = (before - mels).square().sum() + (after - mels).square().sum() + gates.sum()
        return Loss(total=total, weight=mels.numel())

    return Task(model=torchaudio.models.Tacotron2, train=clips(80), loss=loss, collate=collate)


def wavernn():
    def loss(model, batch):
        waves, mels, labels = batch
        out = model(waves, mels)
        total = functional.cross_entropy(
            out.squeeze(1).flatten(0, 1), labels.flatten(), reduction="sum"
        )
        return Loss(total=total, weight=labels.numel())

    def draw(_):
        hop, frames = 275, 1
        samples = hop * frames
        mels = torch.randn(1, 80, frames + 4)
        return torch.randn(1, samples), mels, torch.randint(0, 512, (samples,))

    build = partial(
        torchaudio.models.WaveRNN,
        upsample_scales=[5, 5, 11],
        n_classes=512,
        hop_length=275,
        n_freq=80,
    )
    return Task(model=build, train=Drawn(draw), loss=loss)


def transducer():
    def loss(model, batch):
        frames, lengths, targets, target_lengths = batch
        blank = torch.zeros(len(targets), 1, dtype=targets.dtype)
        out, lengths, _, _ = model(
            frames, lengths, torch.cat([blank, targets], 1), target_lengths + 1
        )
        total = torchaudio.functional.rnnt_loss(
            out, targets.int(), lengths.int(), target_lengths.int(), reduction="sum"
        )
        return Loss(total=total, weight=len(frames))

    build = partial(torchaudio.models.emformer_rnnt_base, num_symbols=29)
    return Task(model=build, train=clips(80, least=128, most=132), loss=loss, collate=padded)


def separation_scores():
    def loss(model, batch):
        return Loss(total=sum(score.sum() for score in model(batch)), weight=len(batch))

    build = audio.squim_objective_base
    return Task(model=build, train=Drawn(lambda _: torch.randn(16000)), loss=loss)


audio = torchaudio.models
TORCHAUDIO = {
    "Conformer": lambda: encoder_task(partial(audio.Conformer, 80, 4, 128, 4, 31), 80),
    "Emformer": lambda: encoder_task(
        partial(audio.Emformer, 80, 4, 128, 4, 16, right_context_length=4), 80
    ),
    "Tacotron2": tacotron2,
    "WaveRNN": wavernn,
    "DeepSpeech": lambda: framewise(partial(audio.DeepSpeech, 40, n_class=28), 1, 100, 40),
    "Wav2Letter": lambda: framewise(
        partial(audio.Wav2Letter, num_classes=28, input_type="mfcc", num_features=40), 40, 200,
        transform=lambda out: out.transpose(1, 2),
    ),
    "wav2vec2_base": lambda: wave_task(audio.wav2vec2_base, 768),
    "wav2vec2_large": lambda: wave_task(audio.wav2vec2_large, 1024),
    "hubert_base": lambda: wave_task(audio.hubert_base, 768),
    "wavlm_base": lambda: wave_task(audio.wavlm_base, 768, masks=False),
    "hubert_pretrain_base": hubert_pretrain,
    "ConvTasNet": lambda: separation(audio.conv_tasnet_base, 1, 8000, (2,)),
    "hdemucs_low": lambda: separation(
        partial(audio.hdemucs_low, ["a", "b"]), 2, 44100, (2, 2)
    ),
    "emformer_rnnt_base": transducer,
    "squim_objective_base": separation_scores,
}  # fmt: skip


# --- transformers --------------------------------------------------------------------------


def pad_words(samples):
    words = nn.utils.rnn.pad_sequence(samples, batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(s) for s in samples], batch_first=True)
    return {"input_ids": words, "attention_mask": mask, "labels": words}


def own_loss(model, batch):
    size = len(next(iter(batch.values())))
    return Loss(total=model(**batch).loss * size, weight=size)


def language(kind, **options):
    """A model of words whose labels are its inputs; `kind`: the class of transformers."""

    def build():
        return hugging(kind, vocab_size=VOCABULARY, **options)

    data = Drawn(lambda index: torch.randint(3, VOCABULARY, (length(index, 20, 48),)))
    return Task(model=build, train=data, loss=own_loss, collate=pad_words)


def hugging(kind, **options):
    import transformers

    model = getattr(transformers, kind)
    return model(model.config_class(**options))


def labelled(kind, draw, **options):
    return Task(model=lambda: hugging(kind, **options), train=Drawn(draw), loss=own_loss)


def picture(_, side=64):
    return {"pixel_values": torch.randn(3, side, side), "labels": torch.randint(2, ())}


def clip_loss(model, batch):
    size = len(batch["input_ids"])
    return Loss(total=model(**batch, return_loss=True).loss * size, weight=size, mixes=True)


def clip():
    def draw(_):
        words = torch.randint(3, 1000, (16,))
        return {"input_ids": words, "pixel_values": torch.randn(3, 64, 64)}

    def build():
        from transformers import CLIPConfig, CLIPModel

        small = {
            "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
            "num_attention_heads": 4,
        }  # fmt: skip
        text = small | {"vocab_size": VOCABULARY}
        vision = small | {"image_size": 64, "patch_size": 8}
        return CLIPModel(CLIPConfig(text_config=text, vision_config=vision))

    return Task(model=build, train=Drawn(draw), loss=clip_loss)


def whisper():
    def draw(index):
        return {"input_features": torch.randn(80, 200), "labels": torch.randint(3, 1000, (12,))}

    return labelled(
        "WhisperForConditionalGeneration", draw, vocab_size=VOCABULARY, d_model=128,
        encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=256, decoder_ffn_dim=256, max_source_positions=100, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, suppress_tokens=None,
        begin_suppress_tokens=None,
    )  # fmt: skip


def speech_words(kind, **options):
    """wav2vec 2.0 and its like, for CTC, with an attention mask of the clips' lengths."""

    def draw(index):
        return torch.randn(length(index, 11000, 16000)), torch.randint(1, 30, (8,))

    def collate(samples):
        waves, lengths, labels, _ = padded(samples)
        mask = (torch.arange(waves.shape[1]) < lengths[:, None]).long()
        return {"input_values": waves, "attention_mask": mask, "labels": labels}

    small = {
        "vocab_size": 32, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 256, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
    }  # fmt: skip
    build = partial(hugging, kind, **(small | options))
    return Task(model=build, train=Drawn(draw), loss=own_loss, collate=collate)


SMALL = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
}
GROUPED = SMALL | {"num_key_value_heads": 2}
MOE = GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2}
GPT = {"n_embd": 128, "n_layer": 2, "n_head": 4}
COUPLED = {
    "d_model": 128, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256,
}  # fmt: skip
TRANSFORMERS = {
    "bert": partial(language, "BertForMaskedLM", **SMALL),
    "gpt2": partial(language, "GPT2LMHeadModel", **GPT),
    "gpt_neo": partial(
        language, "GPTNeoForCausalLM", hidden_size=128, num_layers=2, num_heads=4,
        attention_types=[[["global", "local"], 1]],
    ),
    "gpt_neox": partial(language, "GPTNeoXForCausalLM", **SMALL),
    "gptj": partial(language, "GPTJForCausalLM", **GPT, rotary_dim=16),
    "opt": partial(
        language, "OPTForCausalLM", hidden_size=128, num_hidden_layers=2, num_attention_heads=4,
        ffn_dim=256, word_embed_proj_dim=128,
    ),
    "t5": partial(
        language, "T5ForConditionalGeneration", d_model=128, d_kv=32, d_ff=256, num_layers=2,
        num_heads=4, decoder_start_token_id=0,
    ),
    "bart": partial(language, "BartForConditionalGeneration", **COUPLED),
    "pegasus": partial(
        language, "PegasusForConditionalGeneration", **COUPLED, decoder_start_token_id=0
    ),
    "llama": partial(language, "LlamaForCausalLM", **GROUPED),
    "qwen2": partial(language, "Qwen2ForCausalLM", **GROUPED),
    "qwen3": partial(language, "Qwen3ForCausalLM", **GROUPED),
    "mistral": partial(language, "MistralForCausalLM", **GROUPED),
    "mixtral": partial(language, "MixtralForCausalLM", **MOE, output_router_logits=True),
    "qwen2_moe": partial(
        language, "Qwen2MoeForCausalLM", **GROUPED, num_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=64, shared_expert_intermediate_size=64,
    ),
    "roberta": partial(language, "RobertaForMaskedLM", **SMALL),
    "xlm_roberta": partial(language, "XLMRobertaForMaskedLM", **SMALL),
    "distilbert": partial(
        language, "DistilBertForMaskedLM", dim=128, n_layers=2, n_heads=4, hidden_dim=256
    ),
    "electra": partial(language, "ElectraForMaskedLM", **SMALL, embedding_size=64),
    "deberta_v2": partial(
        language, "DebertaV2ForMaskedLM", **SMALL, relative_attention=True,
        pos_att_type=["p2c", "c2p"],
    ),
    "albert": partial(language, "AlbertForMaskedLM", **SMALL, embedding_size=64),
    "bloom": partial(language, "BloomForCausalLM", hidden_size=128, n_layer=2, n_head=4),
    "falcon": partial(
        language, "FalconForCausalLM", hidden_size=128, num_hidden_layers=2,
        num_attention_heads=4,
    ),
    "phi": partial(language, "PhiForCausalLM", **SMALL),
    "phi3": partial(language, "Phi3ForCausalLM", **GROUPED, pad_token_id=0),
    "gemma": partial(language, "GemmaForCausalLM", **GROUPED, head_dim=32),
    "mamba": partial(language, "MambaForCausalLM", hidden_size=64, num_hidden_layers=2),
    "vit": lambda: labelled(
        "ViTForImageClassification", picture, **SMALL, image_size=64, patch_size=8
    ),
    "deit": lambda: labelled(
        "DeiTForImageClassification", picture, **SMALL, image_size=64, patch_size=8
    ),
    "swin": lambda: labelled(
        "SwinForImageClassification", partial(picture, side=224), embed_dim=24,
        depths=[1, 1], num_heads=[2, 4],
    ),
    "wav2vec2": lambda: speech_words("Wav2Vec2ForCTC"),
    "whisper": whisper,
    "clip": clip,
}  # fmt: skip


# --- timm ----------------------------------------------------------------------------------


def timm_task(name):
    import timm

    _, height, width = timm.get_pretrained_cfg(name).input_size
    build = partial(timm.create_model, name, num_classes=10)
    return pictures(build, 3, height, width)


def timm_names(first, last):
    import timm

    return timm.list_models()[first:last]


# Not looked at while the tracer was made.
HELD_OUT = {
    "codegen": partial(language, "CodeGenForCausalLM", **GPT, rotary_dim=16),
    "stablelm": partial(language, "StableLmForCausalLM", **GROUPED),
    "olmoe": partial(
        language, "OlmoeForCausalLM", **GROUPED, num_experts=4, num_experts_per_tok=2
    ),
    "mpnet": partial(language, "MPNetForMaskedLM", **SMALL),
    "hubert": lambda: speech_words("HubertForCTC"),
    "convnext": lambda: labelled("ConvNextForImageClassification", picture),
    "marian": partial(
        language, "MarianMTModel", **COUPLED, decoder_start_token_id=0, pad_token_id=0
    ),
    "rwkv": partial(language, "RwkvForCausalLM", hidden_size=64, num_hidden_layers=2),
}  # fmt: skip


def groups():
    """{group: {name: function to a Task}}; what is not installed is said, and left out."""
    found = {
        "torchvision": {n: partial(torchvision_task, n) for n in torchvision_names()},
        "torchaudio": TORCHAUDIO,
    }
    if installed("transformers"):
        found["transformers"] = TRANSFORMERS
    if installed("timm"):
        found["timm"] = {n: partial(timm_task, n) for n in timm_names(0, 100)}
    if installed("transformers") and installed("timm"):
        more = {f"timm.{n}": partial(timm_task, n) for n in timm_names(100, 130)}
        found["held_out"] = HELD_OUT | more
    return found


def installed(name):
    try:
        __import__(name)
    except ImportError:
        print(f"{name}: not installed, its models are left out", flush=True)
        return False
    return True


# --- tracing -------------------------------------------------------------------------------


def trace(make, dtype, real):
    """(fake, concrete or refused; what there is to say)."""
    torch.manual_seed(0)
    try:
        task = make()
        tracer = ModelTracer.open(task, Path(__file__))
        made = tracer.trace(2, dtype)
    except AutotrainError as error:
        return "refused", error.message.replace("\n", " ")[:300]
    way = tracer.profile().traced
    said = f"{made.peak_bytes / 2**20:9.1f} MiB {made.ops:6} ops"
    if real and way == "fake":
        tracer.mode, tracer.model = None, task.model()
        peak = tracer.trace(2, dtype).peak_bytes
        said += f"  real {peak / 2**20:9.1f} MiB: {made.peak_bytes / peak - 1:+.2%}"
    return way, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--group", action="append", default=[])
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--real", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for group, models in groups().items():
        if arguments.group and group not in arguments.group:
            continue
        counts, begun = {"fake": 0, "concrete": 0, "refused": 0}, time.perf_counter()
        for name, make in models.items():
            if arguments.only and name not in arguments.only:
                continue
            started = time.perf_counter()
            way, said = trace(make, arguments.dtype, arguments.real)
            gc.collect()
            counts[way] += 1
            rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            seconds = time.perf_counter() - started
            print(f"{group:12} {name:40} {way:8} {seconds:6.2f} s {rss:5.2f} GiB  {said}",
                  flush=True)  # fmt: skip
        if sum(counts.values()):
            print(f"{group}: {counts}, {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
