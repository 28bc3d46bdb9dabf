"""Types of the compiled kernels; csrc/rdlite_core.h says what they compute."""

import numpy as np
import numpy.typing as npt

def decode_refinedet(
    arm_loc: npt.NDArray[np.float32],
    arm_conf: npt.NDArray[np.float32],
    odm_loc: npt.NDArray[np.float32],
    odm_conf: npt.NDArray[np.float32],
    anchors: npt.NDArray[np.float32],
    class_mask: npt.NDArray[np.uint8],
    *,
    variance_xy: float,
    variance_wh: float,
    objectness: float,
    conf: float,
    top_k: int,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int32], int]: ...
def suppress(
    boxes: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    *,
    method: str,
    iou: float,
    sigma: float,
    conf: float,
    max_det: int,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]: ...
def place(
    boxes: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    picked: npt.NDArray[np.int32],
    scores: npt.NDArray[np.float32],
    width: float,
    height: float,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]: ...
