import tarfile
from pathlib import Path

import pytest

from rdlite.errors import ImageError
from rdlite.evaluate.dataset import ImageStore
from tests.annotated import write_image


@pytest.mark.parametrize(
    ("stated", "stored", "hint"),
    [
        ("IMG_1.jpg", "IMG_1.JPG", "; there is IMG_1.JPG, which differs in upper and lower case"),
        ("\u00e9.jpg", "e\u0301.jpg", r"; there is 'e\u0301.jpg', another Unicode form of '\xe9"),
        ("deep/IMG.jpg", "Deep/img.jpg", "; there is Deep/img.jpg, which differs in upper"),
        ("a.jpg", "b.jpg", "nor in a tar shard"),
        ("../a.jpg", "A.jpg", "nor in a tar shard"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_name_that_is_almost_there_is_hinted_at(
    tmp_path: Path, stated: str, stored: str, hint: str, packed: bool
) -> None:
    write_image(tmp_path / stored)
    if (tmp_path / stated).exists():
        pytest.skip("the file system takes both names for one")
    if packed:
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            tar.add(tmp_path / stored, stored)
        (tmp_path / stored).unlink()
    with pytest.raises(ImageError) as caught:
        ImageStore(tmp_path).read(stated)
    text = str(caught.value)
    assert text.startswith("it is not in") and hint in text
    assert ("there is" in text) == (hint[0] == ";")
