"""Draws every method for three photographs: python choose_a_method.py FILE.jpg."""

import io
import sys

from PIL import Image

from captum_groupcam.images import sample_images
from captum_groupcam.methods import MethodSpec, offered_methods
from captum_groupcam.models import load_model
from captum_groupcam.visualization import method_sheet

#: Other than the defaults, so that it takes minutes.
FEWER = {"rise": "rise:n_masks=500", "shapley_value_sampling": "shapley_value_sampling:n_samples=5"}

model, photographs = load_model("efficientnet_lite0"), sample_images()
sheets = []
for name in ("cat", "rocket", "flower"):
    inputs = model.preprocess(photographs[name]())[None]
    predicted, maps = model.network(inputs).argmax(1), {}
    for method in offered_methods():
        spec = MethodSpec.parse(FEWER.get(method, method))
        try:
            maps[method] = model.explain(spec.method, inputs, predicted, **spec.options)[0]
        except ValueError as error:
            print(f"{name}: {method}: {str(error).split('. ')[0]}.")
    file = io.BytesIO()
    image, last = model.denormalize(inputs)[0], name == "flower"
    figure = method_sheet(image, maps, columns=9, title=name, legend=last)
    figure.savefig(file, dpi=60)
    sheets.append(Image.open(file).convert("RGB"))

picture = Image.new("RGB", (sheets[0].width, sum(sheet.height for sheet in sheets)))
top = 0
for sheet in sheets:
    picture.paste(sheet, (0, top))
    top += sheet.height
picture.save(sys.argv[1], quality=75)
