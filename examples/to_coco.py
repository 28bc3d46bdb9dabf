"""Label a folder of images for an annotation tool, as a COCO data set with scores.

python examples/to_coco.py photos labels.json
"""

import sys
from pathlib import Path

from rdlite import Detector, ImageError
from rdlite.sinks import CocoSink

if len(sys.argv) != 3:
    sys.exit(__doc__)
folder, target = sys.argv[1:]
detector = Detector(conf=0.4)
with CocoSink(target, overwrite=True) as sink:
    for path in sorted(Path(folder).glob("*.jpg")):
        try:
            sink.write(detector(path), image=path.name)
        except ImageError as error:  # one bad file does not stop the others
            print(error, file=sys.stderr)
