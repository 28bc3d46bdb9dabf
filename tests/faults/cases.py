"""The faults that rdlite must survive; `pytest tests/faults --co -q` prints them with their tests.

A test names the cases it covers: `@pytest.mark.fault(3, 4)`.
"""

from __future__ import annotations

CASES = {
    # images
    1: "empty file: ImageError",
    2: "random bytes: ImageError",
    3: "JPEG cut anywhere, or with damaged bytes: ImageError or pixels, never a crash",
    4: "PNG cut anywhere, or with damaged bytes: ImageError",
    5: "header claims 60000x60000 pixels: refused before memory is taken",
    6: "one pixel, 2x2, 1x4000, 4000x1: boxes inside the picture",
    7: "gray, alpha, palette, 1-bit, CMYK, 16-bit: the boxes of the RGB picture",
    8: "EXIF orientations 1 to 8: the boxes of the upright picture",
    9: "animated GIF and WebP: the first frame",
    10: "names with spaces, other scripts, 200 letters, a line break: read and written",
    11: "directory, broken link, FIFO, unreadable file: an error at once",
    12: "arrays of other types, shapes and strides: the right boxes or a sentence",
    13: "RGB taken for BGR: other boxes, which color='rgb' mends",
    # videos
    14: "empty, text, sound only: VideoError",
    15: "MP4 cut before its index: VideoError",
    16: "MP4 with its index first, cut in the middle: what there is, and exit code 3",
    17: "bytes flipped in the middle: the undamaged frames, and the damage counted",
    18: "variable frame rate: the time stamps of the file",
    19: "29.97 and 23.976 frames a second: no drift in ten minutes",
    20: "rotated by 90, 180, 270 degrees: upright",
    21: "odd width and height: plays, and the boxes are right",
    22: "10-bit HEVC, 4:4:4, gray, interlaced: decoded",
    23: "no sound: no word; two tracks and subtitles: sound kept, subtitles counted",
    24: "sound that MP4 cannot hold: AAC, said aloud",
    25: "sound longer or shorter than the picture: both end where they did",
    26: "time stamps missing, from 1000 s on, negative: right times",
    27: "a header and no frame: nothing is found, and it is a failure by name",
    28: "resolution changes: boxes in each frame's own size, the output of one size",
    29: "10,000 frames: flat memory, no file left open",
    30: "playlists and concat: refused",
    31: "URLs: refused without a connection",
    # process and disk
    32: "killed at any moment and resumed: the files of an uninterrupted run",
    33: "interrupted: exit code 130, nothing half done under a final name",
    34: "disk full: one error, nothing half done, exit code 1",
    35: "output folder read-only or gone: one clear error",
    36: "two processes, one output: the second is refused, a dead one does not matter",
    37: "standard output closed: quiet",
    38: "output names that lead out of the folder: refused",
    # models
    39: "no model, truncated, other opset, other shapes, no metadata: ModelError, each its own",
    40: "weights in other files, wherever: ModelError",
    41: "NaN, infinite and huge outputs: dropped and counted",
    42: "no object, and every anchor an object: empty arrays, at most max_det",
    43: "a model file replaced while in use, or damaged behind a name: never mixed, ModelError",
    # concurrency and the interface
    44: "8 threads, one detector: the serial results",
    45: "pickled, after fork, in spawned processes: the same results",
    46: "an error in any stage, or an abandoned stream: threads joined, files closed",
    47: "300 detectors: flat memory and threads",
    48: "no network, no HOME, a read-only directory: works, and imports nothing heavy",
}
