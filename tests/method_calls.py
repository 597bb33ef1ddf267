"""The ccfast call that corresponds to each golden file: one function per method, found by the name of the file."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import torch
from method_goldens import Golden
from torch import Tensor

from ccfast import nn
from ccfast.nn import ClusterMemory


def _cluster_memory(case: Golden) -> ClusterMemory:
    clusters, dim = case["memory"].shape
    mode = "hardest" if case["use_hard"] else "sequential"
    memory = ClusterMemory(dim, clusters, case["temperature"], case["momentum"], mode, update="backward")
    memory.features = case["memory"].clone()
    return case.module(memory)


def memory_twice(case: Golden) -> None:
    memory = _cluster_memory(case)
    for step in case.steps("first_inputs"):
        first, second = case.inputs("first_inputs", step), case.inputs("second_inputs", step)
        losses = torch.stack([memory(first, case["first_targets"][step]), memory(second, case["second_targets"][step])])
        losses.sum().backward()
        case.loss("losses", losses, step)
        case.gradient("grad_first", first.grad, step)
        case.gradient("grad_second", second.grad, step)
        case.bank("memory_after", memory.features, step)


def memory_modes(case: Golden) -> None:
    memory = _cluster_memory(case)
    for step, operation in enumerate(case["operations"]):
        memory.train(operation != "eval")
        halves = [case["inputs"][step, half].clone().requires_grad_(operation != "no_input_grad") for half in (0, 1)]
        targets = case["targets"][step]
        losses = [torch.zeros((), dtype=case.dtype) for _ in halves]
        between: Tensor | None = None

        def call(half: int, halves: list = halves, targets: Tensor = targets, losses: list = losses) -> Tensor:
            losses[half] = memory(halves[half], targets[half])
            return losses[half]

        with torch.no_grad() if operation == "no_grad" else contextlib.nullcontext():
            loss = call(0)
        if operation == "two_then_two":
            call(1)
        if operation in ("accumulate", "two_then_two"):
            (loss / 2).backward()
            between = memory.features.clone()
            ((call(1) if operation == "accumulate" else losses[1]) / 2).backward()
        elif operation == "backward_twice":
            loss.backward(retain_graph=True)
            between = memory.features.clone()
            loss.backward()
        elif operation in ("train", "eval", "half_loss"):
            (loss / 2 if operation == "half_loss" else loss).backward()
        else:
            assert operation in ("no_backward", "no_grad", "no_input_grad"), operation
        case.loss("losses", torch.stack([loss.detach().cpu() for loss in losses]), step)
        gradients = [torch.zeros_like(half) if half.grad is None else half.grad for half in halves]
        case.gradient("grad", torch.stack(gradients), step)
        case.bank("memory_between", memory.features if between is None else between, step)
        case.bank("memory_after", memory.features, step)


def _filled(case: Golden, module: Any, name: str = "memory") -> Any:
    """The module with the file's bank, on the backend, in the dtype of the file."""
    module.features = case[name].clone()
    return case.module(module)


def _run(
    case: Golden, module: Any, *names: str, bank: Callable[[Any], Tensor] = lambda module: module.features
) -> None:
    """Steps of one batch each: loss, gradient and bank."""
    for step in case.steps():
        inputs = case.inputs("inputs", step)
        loss = module(inputs, *[case[name][step] for name in names])
        loss.backward()
        case.loss("loss", loss, step)
        case.gradient("grad", inputs.grad, step)
        case.bank("memory_after", module.features, step)


def _rates(case: Golden) -> dict[str, Any]:
    return {name: case[name] for name in ("temperature", "momentum") if name in case}


def _smoothing(case: Golden) -> float:
    return 0.1 if case["smooth"] > 0 else 0.0


def hhcl(case: Golden) -> None:
    rows, dim = case["memory"].shape
    options = _rates(case) | {"hard_weight": case["hard_weight"], "label_smoothing": _smoothing(case)}
    if case["mode"] == "CMhybrid_v2":
        count = case["num_instances"]
        options |= {"centroid": True, "normalize": False}
        module: Any = nn.InstanceMemory(dim, rows // (count + 1), count, **options)
    else:
        clusters = rows // 2 if case["mode"] == "CMhybrid" else rows
        module = nn.DualMemory.hhcl(dim, clusters, case["mode"], **options)
    _run(case, _filled(case, module), "targets")


def label_smoothing(case: Golden) -> None:
    for name, over_best in (("uniform", False), ("topk", True)):
        logits = case["logits"].clone().requires_grad_()
        loss = nn.smoothed_cross_entropy(logits, case["targets"], case["epsilon"], over_best=over_best)
        loss.backward()
        case.loss(f"loss_{name}", loss)
        case.gradient(f"grad_{name}", logits.grad)


def pclhd(case: Golden) -> None:
    rows, dim = case["memory"].shape
    _run(case, _filled(case, nn.DualMemory.pclhd(dim, rows // 2, **_rates(case))), "targets")


def dcmip(case: Golden) -> None:
    rows, dim = case["memory"].shape
    _run(case, _filled(case, nn.DualMemory.dcmip(dim, rows // 2, **_rates(case))), "targets")


def multi_instance(case: Golden) -> None:
    rows, dim = case["memory"].shape
    count = case["num_instances"]
    module = nn.InstanceMemory(dim, rows // count, count, case["temperature"])
    _run(case, _filled(case, module), "targets", "draws")


def camera_update(case: Golden) -> None:
    clusters, dim = case["memory"].shape
    options = _rates(case) | {"mode": case["mode"], "reweight": bool(case["reweight"])}
    _run(case, _filled(case, nn.CameraMemory(dim, clusters, **options)), "targets", "cameras")


def npid(case: Golden) -> None:
    rows, dim = case["memory"].shape
    _run(case, _filled(case, nn.InstanceBank(dim, rows, **_rates(case))), "indexes")


def npid_nce(case: Golden) -> None:
    count, dim = case["memory"].shape
    bank = nn.InstanceBank(dim, count, **_rates(case), num_negatives=case["rows"].shape[2] - 1)
    bank = _filled(case, bank)
    _run(case, bank, "indexes", "rows")
    for step in case.steps():
        case.loss("Z", bank.normalizer, step)


def _hybrid(case: Golden, focal: float = 0) -> nn.HybridMemory:
    rows, dim = case["memory"].shape
    memory = _filled(case, nn.HybridMemory(dim, rows, **_rates(case), focal=focal))
    memory.labels = case["labels"].clone()
    return memory


def spcl(case: Golden) -> None:
    _run(case, _hybrid(case), "indexes")


def spcl_uda(case: Golden) -> None:
    memory = _hybrid(case)
    for step in case.steps("source_inputs"):
        source, target = case.inputs("source_inputs", step), case.inputs("target_inputs", step)
        loss = memory(source, case["source_labels"][step])
        loss = loss + memory(target, case["source_classes"] + case["target_indexes"][step])
        loss.backward()
        case.loss("loss", loss, step)
        case.gradient("grad_source", source.grad, step)
        case.gradient("grad_target", target.grad, step)
        case.bank("memory_after", memory.features, step)


def spcl_labels(case: Golden) -> None:
    memory = case.module(nn.HybridMemory(4, case["raw_labels"].shape[2]))
    for epoch in case.steps("raw_labels"):
        case.equal("labels_after", memory.relabel(*case["raw_labels"][epoch]), epoch)
        case.bank("threshold", memory.threshold, epoch)


def cacl(case: Golden) -> None:
    _run(case, _hybrid(case, focal=4), "indexes")
    memory = _hybrid(case, focal=4)
    for step in case.steps():
        inputs, other = case.inputs("inputs", step), case.inputs("other", step)
        loss = memory(inputs, case["indexes"][step], other)
        loss.backward()
        case.loss("loss_back", loss, step)
        case.gradient("grad_back", inputs.grad, step)
        case.gradient("grad_other", other.grad, step)
        case.bank("memory_after", memory.features, step)


def _proxies(case: Golden, module: nn.ProxyMemory) -> Any:
    module.fill(case["memory"], case["proxy_labels"], case["proxy_cameras"])
    return case.module(module)


def _proxy_options(case: Golden, **more: Any) -> dict[str, Any]:
    return {"temperature": case["temperature"], "num_negatives": case["num_negatives"]} | more


def _run_images(case: Golden, memory: Any, labels: Tensor, before: Callable[[int], None] = lambda step: None) -> None:
    """Steps whose batches are images, each with a label and a camera."""
    for step in case.steps():
        before(step)
        inputs, indexes = case.inputs("inputs", step), case["indexes"][step]
        loss = memory(inputs, labels[indexes], case["cameras"][indexes])
        loss.backward()
        case.loss("loss", loss, step)
        case.gradient("grad", inputs.grad, step)
        case.bank("memory_after", memory.features, step)


def cap(case: Golden) -> None:
    dim = case["memory"].shape[1]
    memory = _proxies(case, nn.ProxyMemory.cap(dim, **_proxy_options(case, momentum=case["momentum"])))

    def before(step: int) -> None:
        memory.offline = bool(case["cross_camera"][step])

    _run_images(case, memory, case["labels"], before)


def _online_options(case: Golden) -> dict[str, Any]:
    terms = {name: bool(case[name]) for name in ("offline", "online") if name in case}
    numbers = {name: case[name] for name in ("num_positives", "balance")}
    return _proxy_options(case, momentum=case["momentum"]) | terms | numbers


def o2cap(case: Golden) -> None:
    memory = _proxies(case, nn.ProxyMemory.o2cap(case["memory"].shape[1], **_online_options(case)))
    _run_images(case, memory, torch.where(case["proxies"] == -1, -1, case["labels"]))


def tmgf(case: Golden) -> None:
    banks, _, dim = case["memory"].shape
    options = _online_options(case) | {"part_weight": case["part_weight"]}
    memory = _proxies(case, nn.ProxyMemory.tmgf(dim, banks - 1, **options))
    _run_images(case, memory, torch.where(case["proxies"] == -1, -1, case["labels"]))


def pplr_camera(case: Golden) -> None:
    memory = _proxies(case, nn.ProxyMemory.pplr(case["memory"].shape[1], **_proxy_options(case)))
    for step in case.steps():
        inputs = case.inputs("inputs", step)
        loss = memory(inputs, case["targets"][step], case["cameras"][step])
        loss.backward()
        case.loss("loss", loss, step)
        case.gradient("grad", inputs.grad, step)
    case.bank("memory", memory.features)


def pplr_refine(case: Golden) -> None:
    logits, parts = (case[name].clone().requires_grad_() for name in ("logits", "part_logits"))
    loss = nn.part_guided_loss(logits, parts, case["targets"], case["agreement"], case["beta"])
    loss.backward()
    case.loss("loss_pglr", loss)
    case.gradient("grad_pglr", logits.grad)
    case.gradient("grad_pglr_parts", torch.zeros_like(parts) if parts.grad is None else parts.grad)
    parts = case["part_logits"].clone().requires_grad_()
    loss = nn.agreement_aware_loss(parts, case["targets"], case["agreement"])
    loss.backward()
    case.loss("loss_aals", loss)
    case.gradient("grad_aals", parts.grad)


def ice(case: Golden) -> None:
    terms = {"class": "centroids", "instance": "instances", "camera": "cameras", "consistency": "consistency"}
    temperatures = {f"{ours}_temperature": case[f"temperature_{theirs}"] for ours, theirs in terms.items()}
    module = case.module(nn.IceLoss(case["proxies"].shape[1], case["num_negatives"], **temperatures))
    module.fill(case["centroids"], case["proxies"], case["proxy_labels"], case["proxy_cameras"])
    for step in case.steps():
        inputs = case.inputs("inputs", step)
        batch = [case[name][step] for name in ("teacher_strong", "teacher_weak", "targets", "cameras")]
        losses = module.losses(inputs, *batch)
        losses.sum().backward()
        case.loss("losses", losses, step)
        case.loss("loss", losses.sum(), step)
        case.gradient("grad", inputs.grad, step)


def moco(case: Golden) -> None:
    size, dim = case["queue"].shape
    module = nn.QueueContrast(dim, size, case["temperature"])
    module.queue = case["queue"].clone()
    module = case.module(module)
    for step in case.steps():
        inputs = case.inputs("inputs", step)
        loss = module(inputs, case["keys"][step])
        loss.backward()
        case.loss("loss", loss, step)
        case.gradient("grad", inputs.grad, step)
        case.bank("queue_after", module.queue, step)
        case.equal("pointer_after", module.pointer[0], step)


def moco_ema(case: Golden) -> None:
    outs, ins = case["q_weight"].shape
    encoder, follower = (case.module(torch.nn.Linear(ins, outs)) for _ in range(2))
    for module, prefix in ((encoder, "q"), (follower, "k")):
        module.load_state_dict({name: case[f"{prefix}_{name}"] for name in ("weight", "bias")})
    for step in case.steps("k_weight_after"):
        nn.update_average_(follower, encoder, case["momentum"])
        case.bank("k_weight_after", follower.weight, step)
        case.bank("k_bias_after", follower.bias, step)


def pcl(case: Golden) -> None:
    size, dim = case["queue"].shape
    module = nn.PrototypeContrast(dim, size, case["temperature"])
    module.queue = case["queue"].clone()
    module = case.module(module)
    kinds = ("assignment", "centroids", "density")
    module.fill(*[[case[f"{kind}_{g}"] for g in range(case["granularities"])] for kind in kinds])
    for step in case.steps():
        inputs, keys = case.inputs("inputs", step), case["keys"][step]
        instance = nn.QueueContrast.forward(copy.deepcopy(module), inputs.detach(), keys)
        loss = module(inputs, keys, case["indexes"][step], case["negatives"][step])
        loss.backward()
        case.loss("loss", loss, step)
        case.loss("loss_instance", instance, step)
        case.loss("loss_prototype", loss - instance, step)
        case.gradient("grad", inputs.grad, step)
        case.bank("queue_after", module.queue, step)


def pcl_density(case: Golden) -> None:
    distances, assignment = case["squared_distances"], case["assignment"]
    case.bank("density", nn.prototype_density(distances, assignment, case["clusters"], case["temperature"]))


def sinkhorn(case: Golden) -> None:
    case.bank("assignment", case.ops.sinkhorn(case["scores"], case["epsilon"], case["iterations"]))


def swav(case: Golden) -> None:
    prototypes, dim = case["prototypes"].shape
    assert case["crops_for_assign"].tolist() == [0, 1]
    numbers = [case[name] for name in ("temperature", "epsilon", "iterations", "queue_length")]
    module = case.module(nn.SwappedAssignment(prototypes, dim, *numbers))
    for step in case.steps():
        module.prototypes.data.copy_(case["prototypes"])
        module.prototypes.grad = None
        inputs = case.inputs("inputs", step)
        loss = module(inputs, case["crops"])
        loss.backward()
        case.loss("loss", loss, step)
        case.gradient("grad", inputs.grad, step)
        case.gradient("grad_prototypes", module.prototypes.grad, step)
        if case["queue_length"]:
            case.equal("queue_used", module.queue_in_use, step)
            case.bank("queue_after", module.queue, step)


def supcon(case: Golden) -> None:
    module = nn.SupConLoss(case["temperature"], case["base_temperature"], anchors=case["mode"])
    for step in case.steps():
        inputs = case.inputs("inputs", step)
        who = {name: case[name][step] for name in ("labels", "mask") if name in case}
        loss = module(inputs, **who)
        loss.backward()
        case.loss("loss", loss, step)
        case.gradient("grad", inputs.grad, step)


def _two_memories(case: Golden, **options: Any) -> nn.CrossModalMemory:
    (visible, dim), (infrared, _) = case["rgb_memory"].shape, case["ir_memory"].shape
    memory = nn.CrossModalMemory(dim, visible, infrared, **_rates(case), **options)
    memory.visible.features, memory.infrared.features = case["rgb_memory"].clone(), case["ir_memory"].clone()
    return case.module(memory)


def _two_banks(case: Golden, memory: nn.CrossModalMemory, at: int | None = None) -> None:
    case.bank("rgb_memory_after", memory.visible.features, at)
    case.bank("ir_memory_after", memory.infrared.features, at)


def pgm(case: Golden) -> None:
    mode = "hardest" if case["use_hard"] else "sequential"
    memory = _two_memories(case, cross_weight=case["cross_weight"], mode=mode)
    into, mapping = ("visible", "ir_to_rgb") if case["cross"] == "rgb" else ("infrared", "rgb_to_ir")
    for step in case.steps("rgb_inputs"):
        visible, infrared = case.inputs("rgb_inputs", step), case.inputs("ir_inputs", step)
        targets = case["rgb_targets"][step], case["ir_targets"][step]
        cross = {"cross": into, "mapping": case[mapping]}
        with torch.no_grad():
            case.loss("losses", torch.stack(memory.losses(visible, infrared, *targets, **cross)), step)
        loss = memory(visible, infrared, *targets, **cross)
        loss.backward()
        case.loss("loss", loss, step)
        case.gradient("grad_rgb", visible.grad, step)
        case.gradient("grad_ir", infrared.grad, step)
        _two_banks(case, memory, step)


def cclnet(case: Golden) -> None:
    memory = _two_memories(case, align_scale=case["scale"])
    for step in case.steps("rgb_inputs"):
        visible, infrared = case.inputs("rgb_inputs", step), case.inputs("ir_inputs", step)
        targets = case["rgb_targets"][step], case["ir_targets"][step]
        with torch.no_grad():
            case.loss("losses", torch.stack(memory.losses(visible, infrared, *targets)[:2]), step)
        memory(visible, infrared, *targets).backward()
        case.gradient("grad_rgb", visible.grad, step)
        case.gradient("grad_ir", infrared.grad, step)
        _two_banks(case, memory, step)


def adca_merge(case: Golden) -> None:
    (visible, dim), (infrared, _) = case["rgb_memory"].shape, case["ir_memory"].shape
    memory = nn.CrossModalMemory(dim, visible, infrared)
    memory.visible.features, memory.infrared.features = case["rgb_memory"].clone(), case["ir_memory"].clone()
    memory.merge(case["pairs"], case["weight"])
    _two_banks(case, memory)


#: By the name of the files.
CALLS: dict[str, Callable[[Golden], None]] = {
    call.__name__: call
    for call in (
        adca_merge,
        cacl,
        camera_update,
        cap,
        cclnet,
        dcmip,
        hhcl,
        ice,
        label_smoothing,
        memory_modes,
        memory_twice,
        moco,
        moco_ema,
        multi_instance,
        npid,
        npid_nce,
        o2cap,
        pcl,
        pcl_density,
        pclhd,
        pgm,
        pplr_camera,
        pplr_refine,
        sinkhorn,
        spcl,
        spcl_labels,
        spcl_uda,
        supcon,
        swav,
        tmgf,
    )
}
