"""Where the data of a folder lies: the layouts that templates read and the probe recognises.

Standard library only. Hidden files, `__MACOSX` and the like are skipped, links are followed
once, and nothing but regular files is ever returned, in sorted order.
"""

from autotrain.blocks.layouts.features import Features, feature_table
from autotrain.blocks.layouts.images import image_folder, image_splits, split_folder
from autotrain.blocks.layouts.kinds import data_kind
from autotrain.blocks.layouts.speech import Clip, speech_clips

__all__ = [
    "Clip",
    "Features",
    "data_kind",
    "feature_table",
    "image_folder",
    "image_splits",
    "speech_clips",
    "split_folder",
]
