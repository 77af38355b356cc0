"""The program that makes a picture again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import captum_groupcam
from captum_groupcam.apps.explorer._figures import title_of
from captum_groupcam.apps.explorer._networks import Models
from captum_groupcam.apps.explorer._questions import Explanation
from captum_groupcam.models import MODELS, ImageClassifier
from captum_groupcam.naming import is_reference

__all__ = ["picture_name", "program"]

_PROGRAM = '''\
"""Made by the explorer of captum_groupcam {version}."""

{imports}

{loading}
image = {image}
inputs = model.prepare(image)

questions = [
{questions}
]
maps = {{}}
for title, method, options in questions:
    maps[title] = model.explain(method, inputs, {target}, **options)[0]

figure = method_sheet(model.denormalize(inputs)[0], maps, title={class_name}, alpha={alpha})
print(save_figure(figure, {output}))
'''
_GIVEN = """\
if "model" not in globals():
    raise SystemExit(
        {what!r}
        "\\nWhere it is called model, run this program by"
        "\\n    import runpy"
        {run!r}
    )"""


def picture_name(explanations: Sequence[Explanation]) -> str:
    """Names the file of :func:`~captum_groupcam.apps.explorer._figures.picture` after the photo."""
    stem = Path(explanations[0].question.view.photo.name).stem
    # What any file system takes, and as many characters.
    plain = "".join(one if one.isalnum() or one in " ._-()" else "_" for one in stem[:50])
    return f"{plain}_explained.png"


def program(
    explanations: Sequence[Explanation],
    models: Models,
    alpha: float = 0.5,
    references: Mapping[str, str] | None = None,
) -> str:
    """Writes a program that makes the same maps, and the same picture of them.

    It takes an uploaded image from the folder that it runs in, and what is the user's own from
    where it was, wherever that is.

    Args:
        explanations (sequence of Explanation): Answers about one photo, model, layer and class.
        models (Models): Where the model is.
        alpha (float, optional): Opacity of the maps. Default: 0.5.
        references (mapping of str to str, optional): What methods of one's own were loaded by, by
            their names. Default: none.
    """
    first = explanations[0]
    question = first.question
    questions = [explanation.question for explanation in explanations]
    model = models.load(question.view.model)
    photo = question.view.photo
    output = picture_name(explanations)
    known = references or {}
    own = [known[name] for name in {q.method: None for q in questions} if name in known]

    opener = "sample_images" if photo.is_sample else "open_image"
    imports = [f"from captum_groupcam.images import {opener}"]
    imports += ["from captum_groupcam.methods import load_method"] if own else []
    imports += ["from captum_groupcam.models import load_model"] if model.source else []
    imports += ["from captum_groupcam.visualization import method_sheet, save_figure"]
    lines = []
    if any(map(_is_searched_here, own)) or (model.source and _is_described_here(model.source)):
        imports = ["import sys", "", *imports]
        lines = [f"sys.path.append({str(Path.cwd())!r})  # where the explorer was started"]
    if model.source:
        lines.append(_loaded(model, model.source, question.layer))
    else:
        lines.append(_given(model, question.layer, Path(output).with_suffix(".py").name))
    lines += [f"load_method({_from_anywhere('name', reference)!r})" for reference in own]
    return _PROGRAM.format(
        version=captum_groupcam.__version__,
        imports="\n".join(imports),
        loading="\n".join(lines),
        image=f"{opener}()[{photo.name!r}]()" if photo.is_sample else f"{opener}({photo.name!r})",
        questions="\n".join(
            f"    ({title_of(one)!r}, {one.method!r}, {dict(one.options)!r})," for one in questions
        ),
        target=question.target,
        class_name=repr(first.class_name),
        alpha=alpha,
        output=repr(output),
    )


def _loaded(model: ImageClassifier, source: Mapping[str, Any], layer: str) -> str:
    """Loads the network by the names that it was loaded by."""
    given = {key: _from_anywhere(key, value) for key, value in source.items()}
    if layer:
        given["layer"] = layer
    if model.device.type != "cpu":
        given["device"] = str(model.device)
    name = given.pop("name")
    arguments = ", ".join([repr(name), *(f"{key}={value!r}" for key, value in given.items())])
    return f"model = load_model({arguments})"


def _given(model: ImageClassifier, layer: str, name: str) -> str:
    """Asks the user of the program for a network that has no name."""
    what = f"The explorer was given its network, {model.name}, as an object."
    run = f"\n    runpy.run_path({name!r}, {{'model': model}})"
    code = _GIVEN.format(what=what, run=run)
    return f"{code}\nmodel = model.at_layer({layer!r})" if layer else code


def _from_anywhere(key: str, value: Any) -> Any:
    """An argument of ``load_model`` with the paths in it made absolute."""
    if isinstance(value, Mapping):
        return {
            inner: _from_anywhere(key, one) if inner == "base" else one
            for inner, one in value.items()
        }
    if not isinstance(value, (str, Path)):
        return value
    text = str(value)
    family, _, rest = text.partition(":")
    module, _, names = text.rpartition(":")
    if key in ("name", "preprocess") and _is_own(text) and module.endswith(".py"):
        return f"{Path(module).absolute()}:{names}"
    if key == "name" and family == "hf" and Path(rest).is_dir():
        return f"hf:{Path(rest).absolute()}"
    is_path = key in ("weights", "class_names") or (key == "name" and text.endswith(".toml"))
    return str(Path(text).absolute()) if is_path and Path(text).is_file() else text


def _is_described_here(source: Mapping[str, Any]) -> bool:
    """Whether loading a network imports from the current folder, as far as can be seen."""
    preprocess = source.get("preprocess")
    base = preprocess.get("base") if isinstance(preprocess, Mapping) else preprocess
    named = [text for text in (source["name"], base) if isinstance(text, str)]
    return source["name"].endswith(".toml") or any(map(_is_searched_here, named))


def _is_searched_here(text: str) -> bool:
    """Whether it names an object of a package in the current folder."""
    package = text.partition(":")[0].partition(".")[0]
    return _is_own(text) and (Path(package).is_dir() or Path(f"{package}.py").is_file())


def _is_own(text: str) -> bool:
    """Whether it names an object of the user's, as ``load_model`` sees it."""
    return is_reference(text) and f"{text.partition(':')[0]}:" not in MODELS
