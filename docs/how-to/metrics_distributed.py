"""Measures maps in several processes: torchrun --nproc-per-node 2 metrics_distributed.py FOLDER."""

import sys

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from captum_groupcam.images import find_images, open_image
from captum_groupcam.metrics import DeletionInsertion
from captum_groupcam.metrics.functional import DeletionInsertionProtocol
from captum_groupcam.models import load_model


class Photos(Dataset):
    """The photos of a folder, each with its number."""

    def __init__(self, folder, preprocess):
        self.files, self.preprocess = find_images(folder), preprocess

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return index, self.preprocess(open_image(self.files[index]))


dist.init_process_group()  # torchrun says how many there are, and which one this is
device = torch.device("cpu")
if torch.cuda.is_available():
    device = torch.device("cuda", dist.get_node_local_rank())
    torch.cuda.set_device(device)

model = load_model("efficientnet_lite0", device=device)
photos = Photos(sys.argv[1], model.preprocess)
loader = DataLoader(photos, batch_size=8, sampler=DistributedSampler(photos, shuffle=False))
metric = DeletionInsertion(model.network, DeletionInsertionProtocol(step=0.1)).to(device)
for ids, images in loader:
    images = images.to(device)
    with torch.no_grad():
        targets = model.network(images).argmax(1)
    maps = model.explain("group_cam", images, targets)
    metric.update(maps, images, targets, ids=ids)

means = {name: round(value.item(), 3) for name, value in metric.compute().items()}
values = metric.per_sample()  # in every process
if dist.get_rank() == 0:
    print(len(values["ids"]), "photos:", means)
dist.destroy_process_group()
