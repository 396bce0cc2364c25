"""COCO: what is annotated is what is handed out, at its place in the square; and one line for what is wrong with a file."""

import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageDraw
from pycocotools import mask as rle

from lgap_bench import CONF
from lgap_bench.cell.check import check, check_subset
from lgap_bench.cell.compose import resolved
from lgap_bench.cell.identity import identity, record_id
from lgap_bench.cell.instantiate import check_signature
from lgap_bench.dataset import coco_json, letterbox, outline, rule
from lgap_bench.dataset.coco import coco
from lgap_bench.dataset.statistics import statistics
from scripts.conditioned_denoising import table1

SAMPLE = Path(os.environ.get("LGAP_BENCH_COCO_SAMPLE", Path(__file__).parents[2] / "shared" / "data"))
MINI, YOLO = SAMPLE / "coco_mini", SAMPLE / "coco128"
real = pytest.mark.skipif(not MINI.is_dir(), reason="needs coco_mini in the folder that LGAP_BENCH_COCO_SAMPLE names")
yolo = pytest.mark.skipif(not (MINI.is_dir() and YOLO.is_dir()), reason="needs coco_mini and coco128")
OTHERS = ["classifier=imagenet/standard", "captioner=empty", "prior=imagenet/latent", "threat=imagenet/linf",
          "purifier=none", "attack=none"]  # fmt: skip
NAMES = {1: "person", 3: "car", 90: "toothbrush"}  # ids with gaps, as COCO's
WIDTH, HEIGHT = 60, 40
COUNT = 10


def refusal(call) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011 the message is looked at by the caller
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def square(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


def thing(key, image, category, left, top, right, bottom, **more):
    made = {"id": key, "image_id": image, "category_id": category, "iscrowd": 0, "area": 1.0,
            "bbox": [left, top, right - left, bottom - top], "segmentation": square(left, top, right, bottom)}  # fmt: skip
    return {**made, **more}


def crowd(key, image, category, left, top, right, bottom):
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[top:bottom, left:right] = 1
    runs, value = [0], 0
    for pixel in pixels.flatten(order="F").tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    held = {"size": [HEIGHT, WIDTH], "counts": runs}
    return thing(key, image, category, left, top, right, bottom, iscrowd=1, segmentation=held)


class Tiny:
    """Ten images of 60 x 40 with a red person (30, 10, 50, 20) and, in every second one, a blue car (0, 0, 15, 40)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ids = [7 * k + 5 for k in range(COUNT)]
        images = [{"id": i, "file_name": f"{i:012d}.png", "width": WIDTH, "height": HEIGHT} for i in ids]
        things = [thing(100 + i, i, 1, 30, 10, 50, 20) for i in ids]
        things += [thing(200 + i, i, 3, 0, 0, 15, 40) for i in ids[::2]]
        self.held = {
            "images": images,
            "annotations": things,
            "categories": [{"id": key, "name": name} for key, name in NAMES.items()],
        }
        said = [{"id": 10 * i + 9 - k, "image_id": i, "caption": f" {k} of {i}\n"} for i in ids for k in range(5)]
        self.said = {"images": images, "annotations": said}
        self.ids = ids
        (folder / "val2017").mkdir(parents=True)
        for image in images:
            self.draw(image)

    def draw(self, image, size=(WIDTH, HEIGHT)):
        canvas = Image.new("RGB", size, (255, 255, 255))
        pen = ImageDraw.Draw(canvas)
        for each in self.held["annotations"]:
            if each["image_id"] == image["id"]:
                left, top, wide, high = each["bbox"]
                color = (255, 0, 0) if each["category_id"] == 1 else (0, 0, 255)
                pen.rectangle((left, top, left + wide - 1, top + high - 1), fill=color)
        canvas.save(self.folder / "val2017" / image["file_name"])

    def save(self):
        for name, content in (("instances", self.held), ("captions", self.said)):
            (self.folder / f"{name}.json").write_text(json.dumps(content))
        return {
            "root": str(self.folder / "val2017"),
            "instances": {"file": str(self.folder / "instances.json")},
            "sentences": {"file": str(self.folder / "captions.json")},
        }

    def load(self, **more):
        return coco(**{**self.save(), "size": 30, **more})

    def read(self):
        self.save()
        return coco_json.instances(str(self.folder / "instances.json"))


@pytest.fixture
def tiny(tmp_path):
    return Tiny(tmp_path / "tiny")


# What is handed out


def test_labels_boxes_and_captions_are_the_annotations(tiny):
    data = tiny.load()
    assert (data.name, data.classes) == ("coco", ("person", "car", "toothbrush"))
    assert data.images.shape == (8, 3, 30, 30)
    assert data.present.shape == (8, 3)
    for row, key in enumerate(data.ids.tolist()):
        both = tiny.ids.index(key) % 2 == 0
        assert data.present[row].tolist() == [True, both, False]
        assert data.labels[row] == 0
        assert data.objects[row].labels.tolist() == ([0, 1] if both else [0])
        assert data.captions[row] == data.caption_of(row) == f"4 of {key}", (
            "the one of lowest id, which is not the first"
        )
    assert data.true_caption(1) == "a photo of a car"


def test_boxes_and_masks_lie_where_the_object_is_seen(tiny):
    data = tiny.load(masks=True)
    row = next(row for row in range(len(data)) if data.present[row, 1])
    image, objects = data.images[row], data.objects[row]
    red, blue = image[0] > image[2] + 0.5, image[2] > image[0] + 0.5
    assert torch.allclose(objects.boxes, torch.tensor([[15, 10, 25, 15], [0, 5, 7.5, 25]]) / 30)
    assert image[:, :5].sum() == image[:, 25:].sum() == 0, "black above and below"
    for seen, drawn in zip((red, blue), objects.masks, strict=True):
        assert drawn.shape == (30, 30)
        assert (seen != drawn).sum() <= 0.15 * drawn.sum(), "but for the rims, which scaling mixes"
    assert data.objects[row : row + 1][0].boxes.tolist() == objects.boxes.tolist()
    assert tiny.load().objects[row].masks is None


@pytest.mark.parametrize("width, height", [(640, 480), (480, 640), (500, 333), (1, 640), (37, 37)])
def test_the_longer_side_fills_the_square_and_the_whole_image_is_in_it(width, height):
    at = letterbox.place(width, height, 512)
    assert max(at.width, at.height) == 512
    assert (at.left == 0) if width >= height else (at.top == 0)
    whole = letterbox.boxes(np.array([[0, 0, width, height]], float), width, height, 512)[0] * 512
    assert whole.tolist() == pytest.approx([at.left, at.top, at.left + at.width, at.top + at.height], abs=1e-3)
    mask = letterbox.masks(np.ones((1, height, width), np.uint8), 512)
    assert mask.sum() == at.width * at.height
    image = letterbox.letterbox(Image.new("RGB", (width, height), (255, 255, 255)), 512)
    assert torch.equal(image[0] > 0, mask[0])


def test_no_object_is_no_box_and_no_mask():
    assert letterbox.boxes(np.zeros((0, 4)), 60, 40, 30).shape == (0, 4)
    assert letterbox.masks(np.zeros((0, 40, 60), np.uint8), 30).shape == (0, 30, 30)


def test_polygons_and_both_forms_of_rle_are_the_same_mask():
    counted = crowd(1, 1, 1, 20, 10, 50, 30)["segmentation"]
    packed = rle.frPyObjects(counted, HEIGHT, WIDTH)
    packed = {**packed, "counts": packed["counts"].decode()}
    want = np.zeros((HEIGHT, WIDTH), bool)
    want[10:30, 20:50] = True
    for form in (square(20, 10, 50, 30), counted, packed):
        assert outline.inside(form, WIDTH, HEIGHT, "it")
        assert (outline.mask(form, WIDTH, HEIGHT).astype(bool) == want).all()


def test_a_crowd_is_a_class_that_is_there_and_no_object(tiny):
    tiny.held["annotations"].append(crowd(900, tiny.ids[1], 3, 0, 0, 15, 40))
    held = tiny.read()
    image = held.images[1]
    assert image.labels == (0, 1)
    assert [each.label for each in image.things] == [0]
    assert held.left_out["crowd regions"] == 1


def test_an_image_of_a_crowd_alone_has_no_objects(tiny):
    mine = [each for each in tiny.held["annotations"] if each["image_id"] == tiny.ids[1]]
    tiny.held["annotations"] = [each for each in tiny.held["annotations"] if each not in mine]
    tiny.held["annotations"].append(crowd(900, tiny.ids[1], 1, 0, 0, 15, 40))
    splits = [tiny.load(split=split, masks=True) for split in ("test", "validation")]
    data = next(data for data in splits if tiny.ids[1] in data.ids)
    row = data.ids.tolist().index(tiny.ids[1])
    assert data.present[row].tolist() == [True, False, False]
    assert data.objects[row].boxes.shape == (0, 4)
    assert data.objects[row].masks.shape == (0, 30, 30)


def test_validation_meets_no_test_image_and_both_are_all(tiny):
    test, validation = tiny.load(), tiny.load(split="validation")
    assert (len(test), len(validation)) == (8, 2)
    assert sorted([*test.ids.tolist(), *validation.ids.tolist()]) == tiny.ids


# What is outside, missing or damaged


def test_an_object_that_sticks_out_is_cut_at_the_rim(tiny):
    tiny.held["annotations"].append(thing(900, tiny.ids[1], 90, -10, 30, 15, 55))
    found = tiny.read().images[1].things[-1]
    assert found.box == (0, 30, 15, 40)
    mask = outline.mask(found.outline, WIDTH, HEIGHT)
    assert mask[30:, :15].all()
    assert not mask[:29].any()


@pytest.mark.parametrize("where", [(60, 0, 80, 20), (-20, 0, 0, 20), (0, 40, 10, 50), (0, -9, 10, -1), (10, 5, 10, 30)])
def test_an_object_without_a_pixel_in_the_image_is_left_out_and_counted(tiny, where):
    tiny.held["annotations"].append(thing(900, tiny.ids[1], 90, *where))
    held = tiny.read()
    assert held.images[1].labels == (0,)
    assert held.left_out["objects without a pixel in their image"] == 1


def test_a_polygon_outside_with_a_box_inside_is_left_out_too(tiny):
    tiny.held["annotations"].append(thing(900, tiny.ids[1], 90, 0, 0, 5, 5, segmentation=square(70, 0, 90, 20)))
    assert tiny.read().left_out["objects without a pixel in their image"] == 1


def test_a_line_is_no_area_alone_and_nothing_beside_a_polygon(tiny):
    line = [30.0, 10.0, 50.0, 20.0]
    tiny.held["annotations"][0]["segmentation"] = [line]
    tiny.held["annotations"][1]["segmentation"] += [line]
    held = tiny.read()
    assert held.left_out["objects without a pixel in their image"] == 1
    assert outline.mask(held.images[1].things[0].outline, WIDTH, HEIGHT).sum() == 200


def test_an_image_without_annotation_is_left_out_and_counted(tiny):
    tiny.held["annotations"] = [each for each in tiny.held["annotations"] if each["image_id"] != tiny.ids[0]]
    held = tiny.read()
    assert [image.id for image in held.images] == tiny.ids[1:]
    assert held.left_out["images without an annotation"] == 1


DAMAGED = [
    ({"image_id": 4}, "annotation 105 is of image 4, which the file does not have"),
    ({"category_id": 0}, "is of category 0, which the file does not have: COCO's own ids are 1 to 90 with gaps, YOLO's 0 to 79"),
    ({"category_id": 79}, "is of category 79"),
    ({"bbox": [1, 2, 3]}, "bbox [1, 2, 3] is not left, top, width and height"),
    ({"bbox": [1, 2, -3, 4]}, "is not left, top, width and height"),
    ({"bbox": [1, 2, float("nan"), 4]}, "is not left, top, width and height"),
    ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "its polygon is no list of x, y"),
    ({"segmentation": []}, "its polygon is no list of x, y"),
    ({"segmentation": [[1, 2, 3, 4, 5, "a"]]}, "its polygon is no list of x, y"),
    ({"segmentation": {"size": [40, 60], "counts": [100, 5]}}, "annotation 105: its RLE is damaged"),
    ({"segmentation": {"size": [40, 60], "counts": [3000, -600]}}, "its RLE is damaged"),
    ({"segmentation": {"size": [40, 60], "counts": "zzz"}}, "its RLE is damaged"),
    ({"segmentation": {"size": [40, 60]}}, "its RLE is damaged"),
    ({"segmentation": {"size": [60, 40], "counts": [2400]}}, "its mask is of [60, 40] and the image of [40, 60] (height, width)"),
]  # fmt: skip


def test_the_text_of_any_mask_is_whole_and_no_longer_when_a_letter_is_lost():
    draw = np.random.RandomState(0)
    for share in (0.0, 0.02, 0.5, 1.0):
        pixels = np.asfortranarray(draw.random_sample((HEIGHT, WIDTH)) < share, np.uint8)
        packed = rle.encode(pixels)
        text = packed["counts"].decode()
        held = {"size": packed["size"], "counts": text}
        assert outline.inside(held, WIDTH, HEIGHT, "it")
        assert (outline.mask(held, WIDTH, HEIGHT) == pixels).all()
        assert "it: its RLE is damaged" in refusal(
            lambda held=held: outline.inside({**held, "counts": held["counts"][:-1]}, WIDTH, HEIGHT, "it")
        )


@pytest.mark.parametrize("change, told", DAMAGED, ids=[told for _, told in DAMAGED])
def test_a_damaged_annotation_is_refused_with_file_and_id(tiny, change, told):
    tiny.held["annotations"][0] |= change
    message = refusal(tiny.read)
    assert message.startswith("dataset.instances.file=")
    assert told in message


def test_ids_that_are_numbered_0_to_79_are_refused_though_most_exist(tiny):
    numbered = {key: place for place, key in enumerate(NAMES)}
    for each in tiny.held["annotations"]:
        each["category_id"] = numbered[each["category_id"]]
    assert "is of category 0" in refusal(tiny.read)


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b'{"images": [', b"[]", b"{}", b'{"images": [], "categories": []}']
)
def test_what_is_no_instances_file_is_refused(tiny, content):
    given = tiny.save()
    Path(given["instances"]["file"]).write_bytes(content)
    message = refusal(lambda: coco(**given))
    assert "is no JSON" in message or "has no list of" in message
    assert "annotations_trainval2017.zip" in message


@pytest.mark.parametrize(
    "kind, change, told",
    [
        ("images", {"width": 0}, "image 5 has no file_name, width or height"),
        ("images", {"file_name": None}, "image 5 has no file_name"),
        ("images", {"id": 12}, "two images have one id"),
        ("categories", {"id": 3}, "two categories have one id"),
        ("categories", {"name": None}, "a category has no name"),
        ("annotations", {"id": 112}, "two annotations have one id"),
        ("annotations", {"id": "a"}, "has no list of annotations"),
    ],
)
def test_entries_without_what_they_need_are_refused(tiny, kind, change, told):
    tiny.held[kind][0] = {**tiny.held[kind][0], **change}
    assert told in refusal(tiny.read)


def test_files_given_for_one_another_are_refused(tiny):
    given = tiny.save()
    swapped = {**given, "instances": given["sentences"], "sentences": given["instances"]}
    assert "has no list of categories" in refusal(lambda: coco(**swapped))
    assert "holds no captions" in refusal(lambda: coco(**{**given, "sentences": given["instances"]}))


@pytest.mark.parametrize("key, name", [("instances", "instances_val2017.json"), ("sentences", "captions_val2017.json")])
def test_a_missing_file_is_named_with_where_it_was_looked_for_and_how_to_get_it(tiny, key, name):
    given = {**tiny.save(), key: {"file": str(tiny.folder / "nowhere" / "a.json")}}
    message = refusal(lambda: coco(**given))
    assert f"dataset.{key}.file={tiny.folder / 'nowhere' / 'a.json'} cannot be read" in message
    assert f"looked in {tiny.folder / 'nowhere'}" in message
    assert f"unpack {name} there" in message


def test_a_missing_image_is_named_and_statistics_need_none(tiny):
    data = tiny.load()
    data.images.files[3].unlink()
    message = refusal(tiny.load)
    assert f"{data.images.files[3].name} is missing, 1 of 8 images, looked in {tiny.folder / 'val2017'}" in message
    assert "val2017.zip" in message
    assert statistics(tiny.load(look=False)) == statistics(data)


def test_an_image_of_another_size_than_annotated_is_refused(tiny):
    tiny.draw(tiny.held["images"][0], size=(HEIGHT, WIDTH))
    messages = []
    for split in ("test", "validation"):
        try:
            tiny.load(split=split)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) == 1
    assert "is 40x60 and annotated as 60x40" in messages[0]


def test_an_image_without_caption_is_refused(tiny):
    tiny.said["annotations"] = tiny.said["annotations"][5:]
    assert f"image {tiny.ids[0]} has no caption" in refusal(lambda: [tiny.load(), tiny.load(split="validation")])


def test_other_class_names_and_unknown_splits_are_refused(tiny):
    assert "class 1 is bus, and" in refusal(lambda: tiny.load(classes=["person", "bus", "toothbrush"]))
    assert "has 2 names, and" in refusal(lambda: tiny.load(classes=["person", "car"]))
    assert refusal(lambda: tiny.load(split="train")) == "dataset.split=train is not known: use test or validation"


# Subsets

SUBSET = {"name": "mine", "classes": 2, "images": 2, "distinct": 2}


def test_a_subset_holds_the_frequent_classes_alone_whatever_the_order_of_the_file(tiny):
    tiny.held["annotations"].append(thing(900, tiny.ids[0], 90, 0, 0, 5, 5))
    data = tiny.load(subset=SUBSET)
    assert len(data) == 2
    assert data.present[:, :2].all()
    assert not data.present[:, 2].any()
    assert not set(data.ids.tolist()) & set(tiny.load(split="validation").ids.tolist())
    other = copy.copy(tiny)
    other.held = {key: entries[::-1] for key, entries in tiny.held.items()}
    assert other.load(subset=SUBSET).ids.tolist() == data.ids.tolist()
    right = rule.digest(data.ids.numpy())
    assert torch.equal(tiny.load(subset={**SUBSET, "sha256": right}).ids, data.ids)
    wrong = {**SUBSET, "sha256": "0" * 64}
    assert f"mine: SHA-256 of its ids is {right}, not 000" in refusal(lambda: tiny.load(subset=wrong))


@pytest.mark.parametrize("seed", range(4))
def test_every_class_occurs_where_images_suffice_and_the_order_is_the_shuffles(seed):
    draw = np.random.RandomState(seed)
    present = draw.random_sample((400, 12)) < np.linspace(0.5, 0.01, 12)
    present[:, 0] |= ~present.any(1)
    ids = np.arange(400) * 3
    made = rule.Rule("mine", classes=11, images=30, seed=seed)
    rows = rule.chosen(made, ids, present)
    counts = present.sum(0)
    frequent = np.argsort(-counts, kind="stable")[:11]
    assert len(set(rows.tolist())) == 30
    assert set(np.flatnonzero(present[rows].any(0))) == set(frequent)
    order = np.random.RandomState(seed).permutation(400).tolist()
    assert [order.index(row) for row in rows] == sorted(order.index(row) for row in rows)
    assert rule.chosen(made, ids, present).tolist() == rows.tolist()
    assert rule.chosen(rule.Rule("mine", 11, 30, seed=seed + 1), ids, present).tolist() != rows.tolist()


def test_more_images_or_classes_than_there_are_is_refused(tiny):
    assert "9 images are asked for, and 8 of 8" in refusal(
        lambda: tiny.load(subset={**SUBSET, "images": 9, "distinct": 1})
    )
    assert "3 classes are asked for, and the images hold 2" in refusal(
        lambda: tiny.load(subset={**SUBSET, "classes": 3})
    )


@pytest.mark.parametrize(
    "change, told",
    [
        ({"images": 0}, "dataset.subset.images=0 is no whole number from 1 on"),
        ({"classes": True}, "dataset.subset.classes=True"),
        ({"seed": -1}, "dataset.subset.seed=-1"),
        ({"imgs": 3}, "dataset.subset: imgs is not known"),
    ],
)
def test_a_rule_that_is_none_is_refused(change, told):
    assert told in refusal(lambda: rule.parse({**SUBSET, **change}))
    assert "classes is missing" in refusal(lambda: rule.parse({"name": "mine", "images": 3}))


PAPERS = {"ten": (10, 10), "small": (10, 100), "medium": (50, 500), "full": (79, 1000)}


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_subsets_compose_with_as_many_classes_and_images(name):
    cell = resolved(["dataset=coco", f"subset=coco/{name}", *OTHERS])
    check(cell)
    check_signature("dataset", cell.dataset)
    held = cell.dataset["subset"]
    assert (held["classes"], held["images"]) == PAPERS[name]
    assert (cell.n, held["name"], len(cell.dataset["classes"])) == (held["images"], name, 80)
    assert yaml.safe_load((CONF / "subset" / "scenes" / f"{name}.yaml").read_text())["_about_"]["evaluated"] == cell.n


def test_the_hash_is_a_proof_and_changes_no_record():
    def id_of(*overrides):
        return record_id(identity(resolved(["dataset=coco", "subset=coco/small", *OTHERS, *overrides]), "cpu"))

    files = [f"dataset.{key}.file={__file__}" for key in ("instances", "sentences")]
    hashed = ["clip=null", "classifier=digits/standard"]
    assert id_of(*files, *hashed) == id_of(*files, *hashed, "dataset.subset.sha256=abc")
    assert id_of(*files, *hashed) != id_of(*files, *hashed, "dataset.subset.seed=1")


def test_a_subset_of_another_split_or_data_set_is_refused():
    cell = resolved(["dataset=coco", "subset=coco/small", *OTHERS, "dataset.split=validation"])
    assert "a subset is of the test images" in refusal(lambda: check_subset(cell))
    cell = resolved(["dataset=imagenet", "subset=coco/small", *OTHERS])
    assert "drawn from another data set" in refusal(lambda: check_subset(cell))
    cell = resolved(["dataset=coco", "subset=coco/small", *OTHERS, "dataset.subset.images=-3"])
    assert "images=-3" in refusal(lambda: check_subset(cell))


# Table 1


def test_the_statistics_are_counted(tiny):
    tiny.held["annotations"].append(crowd(900, tiny.ids[1], 3, 0, 0, 15, 40))
    data = tiny.load()
    found = statistics(data)
    assert (found.classes, found.images, found.absent) == (2, 8, ("toothbrush",))
    assert found.objects_per_image == sum(len(data.objects[row].labels) for row in range(8)) / 8
    assert found.classes_per_image == data.present.sum() / 8
    assert statistics(data, 1).images == 1
    assert "n=9 is not in [1, 8]" in refusal(lambda: statistics(data, 9))


def test_statistics_of_one_class_per_image_are_refused():
    from lgap_bench.dataset.digits import digits

    assert "dataset=digits: its objects are not known" in refusal(lambda: statistics(digits()))


def test_table_1_stands_beside_the_published_numbers(tiny):
    given = tiny.save()
    overrides = [f"dataset.root={given['root']}", "dataset.classes=null", "dataset.synonyms=null", "dataset.subset.images=2",
                 "dataset.subset.classes=2", "n=2", *(f"dataset.{key}.file={given[key]['file']}" for key in ("instances", "sentences"))]  # fmt: skip
    for file in (tiny.folder / "val2017").iterdir():
        file.unlink()
    page = table1.made("coco", overrides)
    (table,) = page.tables
    assert [row["published images"] for row in table.rows] == ["100", "500", "1000"]
    assert [row["published objects per image"] for row in table.rows] == ["3.2", "5.1", "7.8"]
    assert [row["classes"] for row in table.rows] == [2, 2, 2]
    assert [row["objects per image"] for row in table.rows] == ["2.00"] * 3
    assert any("1 classes do not occur: toothbrush" in note for note in page.notes)


# Real files


def mini(**more):
    files = {"instances": "instances_val2017.json", "sentences": "captions_val2017.json"}
    given = {key: {"file": str(MINI / name)} for key, name in files.items()}
    return coco(**{"root": str(MINI / "val2017"), **given, **more})


@real
def test_real_labels_boxes_and_captions_equal_the_official_annotations():
    held = json.loads((MINI / "instances_val2017.json").read_text())
    said = json.loads((MINI / "captions_val2017.json").read_text())["annotations"]
    places = {each["id"]: place for place, each in enumerate(sorted(held["categories"], key=lambda c: c["id"]))}
    sizes = {each["id"]: (each["width"], each["height"]) for each in held["images"]}
    splits = [mini(split=split) for split in ("test", "validation")]
    assert [len(data) for data in splits] == [32, 8]
    assert splits[0].classes == tuple(class_names()) == tuple(c["name"] for c in held["categories"])
    for data in splits:
        for row, key in enumerate(data.ids.tolist()):
            mine = sorted((a for a in held["annotations"] if a["image_id"] == key), key=lambda a: a["id"])
            assert data.present[row].nonzero().flatten().tolist() == sorted({places[a["category_id"]] for a in mine})
            single = [a for a in mine if not a["iscrowd"]]
            assert data.objects[row].labels.tolist() == [places[a["category_id"]] for a in single]
            back = unboxed(data.objects[row].boxes, *sizes[key])
            assert np.allclose(back, [corners(a["bbox"]) for a in single], atol=0.01)
            sentences = sorted((a["id"], a["caption"]) for a in said if a["image_id"] == key)
            assert len(sentences) == 5
            assert data.captions[row] == " ".join(sentences[0][1].split())


@real
def test_real_masks_lie_in_their_boxes_and_images_are_read():
    data = mini(masks=True)
    assert data.images[:3].shape == (3, 3, 512, 512)
    met = 0
    for row in range(5):
        objects = data.objects[row]
        for box, mask in zip(objects.boxes * 512, objects.masks, strict=True):
            ys, xs = mask.nonzero(as_tuple=True)
            if len(xs):  # an object below one pixel of the small square has none
                around = [int(edge) for edge in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)]
                excess = np.subtract(around, box.tolist()) * [-1, -1, 1, 1]
                assert excess.max() < 1.6, "no pixel far outside; thin ends of an outline may be lost within"
                met += 1
    assert met > 20


@real
def test_real_images_give_table_1(tmp_path):
    data = mini(subset={"name": "mine", "classes": 40, "images": 8, "distinct": 2}, look=False)
    found = statistics(data)
    assert found.images == 8
    assert found.classes + len(found.absent) == 80
    assert found.objects_per_image == np.mean([len(each.labels) for each in data.objects])


@real
def test_real_masks_are_pycocotools_scaled():
    from pycocotools.coco import COCO

    official, data = COCO(str(MINI / "instances_val2017.json")), mini(masks=True)
    for row, key in enumerate(data.ids.tolist()[:5]):
        mine = official.loadAnns(sorted(official.getAnnIds(key, iscrowd=0)))
        area = (512 / max(data.objects.images[row].width, data.objects.images[row].height)) ** 2
        for each, mask in zip(mine, data.objects[row].masks, strict=True):
            pixels = official.annToMask(each).sum()
            assert mask.sum() == pytest.approx(pixels * area, rel=0.1, abs=12)


@yolo
def test_yolos_boxes_of_the_same_images_are_the_official_ones():
    held = coco_json.instances(str(MINI / "instances_val2017.json"))
    met = 0
    for image in held.images:
        file = YOLO / "labels_boxes" / f"{image.id:012d}.txt"
        if not file.is_file():
            continue
        lines = [line.split() for line in file.read_text().splitlines()]
        theirs = [(int(label), *map(float, rest)) for label, *rest in lines]
        ours = [(each.label, *centred(each.box, image)) for each in image.things]
        assert [row[0] for row in sorted(ours)] == [row[0] for row in sorted(theirs)], image.id
        for row in theirs:
            assert min(np.abs(np.subtract(row, other)).max() for other in ours) < 2e-3, image.id
        met += 1
    assert met > 0


def class_names():
    return yaml.safe_load((CONF / "dataset" / "coco.yaml").read_text())["classes"]


def corners(box):
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def unboxed(boxes, width, height, size=512):
    """Shares of the square back in the image's pixels."""
    at = letterbox.place(width, height, size)
    scale = np.array([width / at.width, height / at.height] * 2)
    return (boxes.numpy().astype(float) * size - [at.left, at.top] * 2) * scale


def centred(box, image):
    left, top, right, bottom = box
    return (
        (left + right) / 2 / image.width,
        (top + bottom) / 2 / image.height,
        (right - left) / image.width,
        (bottom - top) / image.height,
    )
