"""One rank of a training under PyTorch: does what gantry's training asks of it over a socket.

The training itself (which images, in which order, how varied, when to measure, keep and stop) is
gantry's and the same for every engine; here are forward and backward passes, the optimizer's step,
and what ranks exchange. A message is the length of a JSON header (4 bytes, little endian), the
header, and the arrays it names, one after the other. Started once for each GPU, by gantry or by
torchrun, which say which rank it is in the usual variables.

Images come ahead of the step that takes them, and are read by a thread beside it: what a step waits
for them is told with its loss.
"""

import ctypes
import json
import math
import os
import queue
import signal
import socket
import struct
import sys
import threading
import time

import torch
import torch.distributed as dist

from network import Network

# What keeps Dice defined where neither side has a pixel.
SMOOTH = 1.0
LENGTH = struct.Struct("<I")
TYPES = {"f32": torch.float32, "u8": torch.uint8}


class Link:
    """The socket to gantry. A thread reads what comes, at most a few messages ahead."""

    AHEAD = 4

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.messages = queue.Queue(self.AHEAD)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            while True:
                self.messages.put(self.message())
        except (EOFError, OSError):
            # Gantry has ended, and with it the training.
            self.messages.put(None)

    def exactly(self, count):
        data = bytearray(count)
        view = memoryview(data)
        while view:
            got = self.socket.recv_into(view)
            if got == 0:
                raise EOFError
            view = view[got:]
        return data

    def message(self):
        header = json.loads(self.exactly(LENGTH.unpack(self.exactly(LENGTH.size))[0]))
        arrays = {}
        for name, kind, shape in header["arrays"]:
            kind, count = TYPES[kind], math.prod(shape)
            data = self.exactly(count * torch.empty(0, dtype=kind).element_size())
            flat = torch.frombuffer(data, dtype=kind) if count else torch.empty(0, dtype=kind)
            arrays[name] = flat.reshape(shape)
        return header, arrays

    def receive(self):
        """The next message; ends the process where there is none."""
        message = self.messages.get()
        if message is None:
            sys.exit(0)
        return message

    def send(self, header, arrays=()):
        tensors = [(name, tensor.detach().float().cpu().contiguous()) for name, tensor in arrays]
        header["arrays"] = [(name, "f32", list(tensor.shape)) for name, tensor in tensors]
        text = json.dumps(header).encode()
        self.socket.sendall(LENGTH.pack(len(text)) + text)
        for _, tensor in tensors:
            size = tensor.numel() * tensor.element_size()
            self.socket.sendall((ctypes.c_char * size).from_address(tensor.data_ptr()))


class Ranks:
    """The ranks of this training, of which there may be one."""

    def __init__(self, device):
        self.device = device
        self.rank = int(os.environ.get("RANK", "0"))
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        if self.count > 1:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")

    def sum(self, tensor):
        """The sum of a tensor over all ranks, in its place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def total(self, local):
        """The sum over all ranks, of which only this rank's part has a gradient here."""
        if self.count == 1:
            return local
        return local + (self.sum(local.detach().clone()) - local.detach())

    def agree(self, flag):
        """Whether any rank says so."""
        return bool(self.sum(torch.tensor([float(flag)], device=self.device)).item() > 0)

    def require_same(self, digest):
        """Refuses ranks that do not begin from the same run."""
        if self.count == 1:
            return
        bounds = torch.tensor([digest, -digest], dtype=torch.int64, device=self.device)
        dist.all_reduce(bounds, op=dist.ReduceOp.MAX)
        if bounds[0] != -bounds[1]:
            raise ValueError(
                "the ranks do not begin from the same samples and checkpoint; start the run again"
            )


class Training:
    """A network, its optimizer's moments, and where they are."""

    def __init__(self, header, arrays, device, ranks):
        self.device, self.ranks = device, ranks
        ranks.require_same(header["digest"])
        self.network = Network(header["graph"]).to(device)
        self.precision = torch.bfloat16 if header["precision"] == "bf16" else torch.float32
        self.classes, self.dice = header["classes"], header["dice"]
        self.shown = False
        self.names, self.parameters = zip(*sorted(self.network.named_parameters()))
        self.decay, self.second_decay = header["decays"]
        self.epsilon = header["epsilon"]
        self.first = self.part(arrays, "first")
        self.second = self.part(arrays, "second")
        self.average = None
        if any(name.startswith("average.") for name in arrays):
            self.average = self.part(arrays, "average")
        self.put(self.part(arrays, "weights"))

    @torch.no_grad()
    def put(self, values):
        for parameter, value in zip(self.parameters, values):
            parameter.copy_(value)

    def part(self, arrays, part):
        named = [arrays[f"{part}.{name}"].to(self.device) for name in self.names]
        for name, value, parameter in zip(self.names, named, self.parameters):
            if value.shape != parameter.shape:
                raise ValueError(f"weight {name} has shape {list(value.shape)}, not {list(parameter.shape)}")
        return named

    def arrays(self):
        for part, values in (
            ("weights", self.parameters),
            ("first", self.first),
            ("second", self.second),
            ("average", self.average or []),
        ):
            for name, value in zip(self.names, values):
                yield f"{part}.{name}", value

    def forward(self, images):
        """Logits, features, and the logits of halved sides where it is supervised deeply."""
        images = images.to(self.device, non_blocking=True)
        if self.device.type == "cuda":
            layout = torch.channels_last if images.dim() == 4 else torch.channels_last_3d
            images = images.contiguous(memory_format=layout)
        if self.precision == torch.float32:
            return self.network.all(images)
        with torch.autocast(self.device.type, dtype=self.precision):
            logits, features, aids = self.network.all(images)
        return logits.float(), features.float(), [(halved, aid.float()) for halved, aid in aids]

    def loss(self, logits, labels, pixels):
        """Cross-entropy, and soft Dice for masks, over the images of all ranks with so many labels."""
        log_probability = torch.log_softmax(logits.flatten(2) if self.dice else logits[..., None], dim=1)
        labels = labels.to(self.device, non_blocking=True).long()
        target = torch.nn.functional.one_hot(labels, self.classes).movedim(-1, 1).float()
        cross_entropy = self.ranks.total(-(log_probability * target).sum() / pixels)
        if not self.dice:
            return cross_entropy
        probability, target = log_probability[:, 1:].exp(), target[:, 1:]
        others = (0, 2)
        both = 2.0 * (probability * target).sum(dim=others)
        all_ = probability.sum(dim=others) + target.sum(dim=others)
        sums = self.ranks.total(torch.stack([both, all_]))
        dice = ((sums[0] + SMOOTH) / (sums[1] + SMOOTH)).mean()
        return cross_entropy + 1.0 - dice

    def step(self, header, images, labels):
        """One step with this rank's share of a batch. A rank without a share takes part all the same."""
        for parameter in self.parameters:
            parameter.grad = None
        if len(images):
            logits, _, aids = self.forward(images)
        else:
            shape = images.shape[2:] if self.dice else ()
            none = lambda halved: torch.zeros(
                0, self.classes, *(side >> halved for side in shape), device=self.device
            )
            logits, aids = none(0), [(halved, none(halved)) for _, halved in self.network.aids]
        loss = self.loss(logits, labels, header["pixels"])
        if aids:
            weights = 1.0
            picture = labels.reshape(len(labels), *images.shape[2:])
            for halved, aid in aids:
                # Of each group of voxels the first gives its label.
                step = 1 << halved
                thin = picture[(..., *[slice(None, None, step)] * self.network.axes)].flatten(1)
                part = self.loss(aid, thin, header["pixels"] // step**self.network.axes)
                loss = loss + part * 0.5**halved
                weights += 0.5**halved
            loss = loss / weights
        if len(images):
            loss.backward()
        gradient = torch.cat(
            [
                (parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)).flatten()
                for parameter in self.parameters
            ]
        )
        self.ranks.sum(gradient)
        finite = bool(torch.isfinite(gradient).all() and torch.isfinite(loss))
        if finite:
            self.advance(header, gradient)
        # JSON has no word for what is no number.
        return {"loss": loss.item() if finite else None, "finite": finite}

    @torch.no_grad()
    def advance(self, header, gradient):
        """AdamW (Loshchilov and Hutter 2019); scales and shifts are not pulled towards 0."""
        number, rate = header["number"], header["rate"]
        first_share = 1.0 - self.decay**number
        second_share = 1.0 - self.second_decay**number
        pieces = gradient.split([parameter.numel() for parameter in self.parameters])
        for parameter, piece, first, second in zip(self.parameters, pieces, self.first, self.second):
            piece = piece.view_as(parameter)
            first.lerp_(piece, 1.0 - self.decay)
            second.mul_(self.second_decay).addcmul_(piece, piece, value=1.0 - self.second_decay)
            if parameter.dim() > 1:
                parameter.mul_(1.0 - rate * header["decay"])
            spread = (second / second_share).sqrt_().add_(self.epsilon)
            parameter.addcdiv_(first, spread, value=-rate / first_share)
        for average, parameter in zip(self.average or [], self.parameters):
            average.lerp_(parameter, 1.0 - header["average"])

    def show(self, arrays):
        """Puts other weights in the place of those that learn. The training is over."""
        self.put([arrays[name].to(self.device) for name in self.names])
        self.shown = True

    @torch.no_grad()
    def see(self, arrays):
        averaged = self.average is not None and not self.shown
        if averaged:
            learning = [parameter.clone() for parameter in self.parameters]
            self.put(self.average)
        logits, features, _ = self.forward(arrays["images"])
        if averaged:
            self.put(learning)
        return [("logits", logits), ("features", features)]


# The GPU of this rank among those that it sees: said by gantry where it starts the rank itself.
PLACE = int(os.environ.get("GANTRY_DEVICE", os.environ.get("LOCAL_RANK", "0")))


def device_of():
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.cuda.set_device(PLACE)
    return torch.device("cuda", PLACE)


def name_of(device):
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def memory_of(device):
    """MiB of the GPU's memory that were in use at most."""
    return torch.cuda.max_memory_allocated(device) >> 20 if device.type == "cuda" else 0


def serve(link, device):
    ranks = Ranks(device)
    training, images, waited = None, [], 0.0
    while True:
        start = time.perf_counter()
        header, arrays = link.receive()
        kind = header["kind"]
        if kind == "images":
            waited += time.perf_counter() - start
            images.append((arrays["images"], arrays["labels"]))
        elif kind == "step":
            done = training.step(header, *images.pop(0))
            link.send({**done, "waited_s": waited, "memory_mib": memory_of(device)})
            waited = 0.0
        elif kind == "agree":
            link.send({"agreed": ranks.agree(header["flag"])})
        elif kind == "begin":
            training = Training(header, arrays, device, ranks)
            link.send({})
        elif kind == "show":
            training.show(arrays)
            link.send({})
        elif kind == "see":
            link.send({}, training.see(arrays))
        elif kind == "weights":
            link.send({}, training.arrays())
        else:
            raise ValueError(f"no such message: {kind}")


def words(error):
    """What went wrong, and what to do, without a trace."""
    if "out of memory" in str(error).lower():
        return "memory", "the GPU's memory is too small for this batch"
    return "other", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def main():
    # Gantry decides when to stop, and asks for a checkpoint first.
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, signal.SIG_IGN)
    link = Link(sys.argv[1])
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    device = device_of()
    if device.type == "cpu" and "GANTRY_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["GANTRY_THREADS"]))
    link.send(
        {
            "place": PLACE,
            "torch": torch.__version__,
            "device": name_of(device),
            "bf16": device.type == "cuda" and torch.cuda.is_bf16_supported(),
        }
    )
    try:
        serve(link, device)
    except Exception as error:  # Whatever it is, gantry says it to the user.
        kind, sentence = words(error)
        try:
            link.send({"error": kind, "sentence": sentence})
        except OSError:
            pass
        sys.exit(1)


if __name__ == "__main__":
    main()
