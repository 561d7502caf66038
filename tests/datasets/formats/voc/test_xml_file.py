"""XML files that cannot be read: one sentence with the file and the line."""

import os

import pytest

from datasets.formats.voc.xml_file import looks_like_voc, read_voc_file
from tests.helpers.layouts.voc_layouts import object_xml, write_xml

GOOD = f"<annotation>\n<filename>a.jpg</filename>\n{object_xml()}\n</annotation>\n"


@pytest.mark.parametrize("word", ["Unspecified", "0.35", "-1", "partly"])
def test_flags_that_training_does_not_read_may_hold_anything(tmp_path, word):
    path = tmp_path / "a.xml"
    path.write_text(GOOD.replace("</name>", f"</name><truncated>{word}</truncated><occluded>{word}</occluded>"))
    assert read_voc_file(path).objects[0].flags == {}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "annotation file {} is empty"),
        (GOOD[:70], "annotation file {} line 3 is not well-formed XML"),
        (GOOD[:-5], "annotation file {} line 4 is not well-formed XML .unclosed token.: it is cut off: copy it again"),
        (GOOD.replace("cat", "a & b"), "line 3 is not well-formed XML .* write &amp; or &lt;"),
        (
            '<!DOCTYPE x [\n<!ENTITY e "y">]>\n<annotation>&e;</annotation>',
            "line 2 declares entities, which are not read",
        ),
        ('<!DOCTYPE x SYSTEM "file:///etc/passwd">\n' + GOOD, "line 1 declares externalreference, which are not read"),
        ("<kml>\n</kml>", "line 1 is not Pascal VOC: its root is <kml>, not <annotation>"),
        ("<annotation>" + "<a>" * 100, "line 1 has more than 50 elements within each other"),
        (GOOD.replace("<name>cat</name>", ""), "line 3 has an <object> without <name>: add its class"),
        (GOOD.replace("cat", " "), "line 3 has an <object> without <name>: add its class"),
        (
            GOOD.replace("bndbox", "robndbox"),
            "line 3 has an <object> without <bndbox> but <robndbox>, which is not read",
        ),
        (GOOD.replace("ymin", "y"), "line 3 has a <bndbox> without <ymin>: it needs xmin, ymin, xmax and ymax"),
        (GOOD.replace(">30<", ">3O<"), "line 3 has <xmax> '3O', which is no pixel: correct it"),
        (GOOD.replace(">30<", ">nan<"), "line 3 has <xmax> 'nan', which is no pixel"),
        (GOOD.replace(">30<", ">1e400<"), "line 3 has <xmax> '1e400', which is no pixel"),
        (GOOD.replace(">30<", f">{'9' * 5000}<"), "line 3 has <xmax> '9999.*…', which is no pixel"),
        (
            GOOD.replace("</name>", "</name>\n<name>dog</name>"),
            "line 4 has a second <name> in one <object>: remove one",
        ),
        (GOOD.replace("</name>", "</name><difficult>2</difficult>"), "line 3 has <difficult> '2': write 0 or 1"),
        ('<?xml version="1.0" encoding="klingon"?>' + GOOD, "line 1 is in an encoding that is not read"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_line(tmp_path, content, expected):
    path = tmp_path / "a.xml"
    path.write_text(content)
    with pytest.raises(ValueError, match=expected.format(path)) as error:
        read_voc_file(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb2312", "shift_jis", "gbk", "iso-8859-1"])
def test_files_in_other_encodings_are_read(tmp_path, encoding):
    name = "é" if encoding == "iso-8859-1" else "犬"
    text = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>\n{GOOD.replace("cat", name)}'
    path = tmp_path / "a.xml"
    path.write_bytes(text.encode(encoding))
    assert read_voc_file(path).objects[0].name == name
    assert looks_like_voc(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.xml")
    assert not looks_like_voc(tmp_path / "a.xml")
    with pytest.raises(OSError, match="annotation file .*a.xml is not a regular file"):
        read_voc_file(tmp_path / "a.xml")


def test_only_files_of_voc_look_like_it(tmp_path):
    assert looks_like_voc(write_xml(tmp_path / "a.xml"))
    (tmp_path / "b.xml").write_text("<project><annotations/></project>")
    assert not looks_like_voc(tmp_path / "b.xml")
    assert not looks_like_voc(tmp_path / "none.xml")
