"""``--mean-teacher``: an average of the encoder gives the clusters, is evaluated and is saved."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from processes import together, without_costs

from ccfast._errors import InputError
from ccfast.models import build_encoder
from ccfast.training import TrainConfig, train
from ccfast.training.mean_teacher import follow, teacher_of

OPTIONS = {"epochs": 2, "iters": 4, "device": "cpu", "quiet": True}


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    """No curves: drawing them takes longer than these runs."""
    monkeypatch.setattr("ccfast.training.messages.picture", lambda *args: None)


def run(path, **options):
    return train(TrainConfig(run=str(path), **{**OPTIONS, "mean_teacher": True, "teacher_momentum": 0.5, **options}))


def content(run, name="checkpoint.pt"):
    return torch.load(run / name, weights_only=True)


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_teacher_follows_parameters_and_statistics():
    torch.manual_seed(0)
    student = build_encoder("smallconv", channels=1, height=8, width=8)
    teacher = teacher_of(student)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student.train()(torch.rand(8, 1, 8, 8)).sum().backward()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 1.0
    follow(teacher, student, 0.75)
    theirs = student.state_dict()
    for name, value in teacher.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert value == theirs[name] == 1
        else:
            torch.testing.assert_close(value, 0.75 * before[name] + 0.25 * theirs[name])
    assert not same(before, teacher.state_dict()) and not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_constants_stay_as_they_are():
    student = build_encoder("smallconv", channels=1, height=8, width=8)
    student.input_mean.fill_(0.1)
    teacher = teacher_of(student)
    for _ in range(100):
        follow(teacher, student, 0.999)
    assert same(student.state_dict(), teacher.state_dict())


@pytest.mark.slow
def test_a_teacher_of_momentum_0_is_the_encoder_itself(tmp_path):
    alone = run(tmp_path / "alone", mean_teacher=False, teacher_momentum=0.999)
    taught = run(tmp_path / "taught", teacher_momentum=0.0)
    assert without_costs(taught.records) == without_costs(alone.records)
    assert same(content(taught.run)["model"], content(alone.run)["model"])
    assert same(content(taught.run)["student"], content(alone.run)["model"])
    assert content(alone.run).get("student") is None


@pytest.mark.slow
def test_a_teacher_of_momentum_1_stays_while_the_encoder_learns(tmp_path):
    result = run(tmp_path / "run", teacher_momentum=1.0)
    first, *others = result.records
    assert all(record["mAP"] == first["mAP"] for record in others), "the teacher is evaluated"
    assert others[0]["clusters"] == others[1]["clusters"], "its features are clustered"
    assert others[1]["loss"] < others[0]["loss"], "the encoder has learnt"
    assert not same(content(result.run)["model"], content(result.run)["student"])


@pytest.mark.slow
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path):
    whole = run(tmp_path / "whole")
    run(tmp_path / "run", epochs=1)
    torch.manual_seed(123)  # other random numbers in between
    resumed = run(tmp_path / "run", resume=True)
    assert without_costs(resumed.records) == without_costs(whole.records)
    for part in ("model", "student"):
        assert same(content(whole.run)[part], content(resumed.run)[part])
    best = max(whole.records, key=lambda record: record["mAP"])
    if best["epoch"] == 2:
        assert same(content(whole.run, "best.pt")["model"], content(whole.run)["model"])
    assert "student" not in content(whole.run, "best.pt")


@pytest.mark.slow
def test_what_is_searched_with_is_the_teacher(tmp_path):
    from ccfast.commands.evaluate.measure import evaluate_checkpoint

    result = run(tmp_path / "run")
    metrics = evaluate_checkpoint(str(result.run / "checkpoint.pt"), device="cpu")
    assert metrics["mAP"] == pytest.approx(result.records[-1]["mAP"], abs=1e-6)
    start = run(tmp_path / "next", mean_teacher=False, teacher_momentum=0.999, init=str(result.run / "checkpoint.pt"))
    assert start.records[0]["mAP"] == pytest.approx(metrics["mAP"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["missing", "of another shape"])
def test_a_checkpoint_without_its_student_is_refused(damage, tmp_path):
    result = run(tmp_path / "run", epochs=1)
    found = content(result.run)
    if damage == "missing":
        del found["student"]
    else:
        found["student"]["neck.weight"] = torch.ones(3)
    torch.save(found, result.run / "checkpoint.pt")
    with pytest.raises(InputError, match=r"checkpoint.pt: .*(student|neck.weight)"):
        run(tmp_path / "run", resume=True)


@pytest.mark.slow
def test_it_trains_under_autocast(tmp_path):
    assert run(tmp_path / "run", epochs=1, amp="bf16").records[-1]["loss"] > 0


def after_an_epoch(group, folder):
    """The loss, the teacher and the encoder after one epoch."""
    from ccfast.training.data_of import data_of
    from ccfast.training.loop import Run
    from ccfast.training.run_folder.folder import RunFolder

    options = {**OPTIONS, "epochs": 1, "eval_every": 2, "mean_teacher": True, "teacher_momentum": 0.5, "bn_group": 32}
    config = TrainConfig(**options)
    one = Run(config, data_of(config), RunFolder(folder / f"run-{group.size}"), torch.device("cpu"), group)
    if group.is_main:
        one.folder.path.mkdir(parents=True)
    one.start()
    one.epoch()
    return {"loss": one.records[-1]["loss"], "teacher": one.encoder.state_dict(), "student": one.learner.state_dict()}


@pytest.mark.slow
def test_processes_keep_the_same_teacher_as_one(tmp_path):
    from ccfast.training.group import Group

    alone = after_an_epoch(Group(), tmp_path)
    for found in together(2, partial(after_an_epoch, folder=tmp_path), tmp_path):
        assert found["loss"] == pytest.approx(alone["loss"], rel=1e-3)
        for part in ("teacher", "student"):
            for name, value in found[part].items():
                torch.testing.assert_close(value, alone[part][name], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean_teacher": False, "teacher_momentum": 0.9}, "--teacher-momentum: only with --mean-teacher"),
        ({"teacher_momentum": 1.5}, r"--teacher-momentum: expected a number in \[0, 1\], got 1.5"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(**{"mean_teacher": True, **options})


@pytest.mark.slow
def test_another_teacher_is_no_way_to_go_on(tmp_path):
    run(tmp_path / "run", epochs=1)
    with pytest.raises(InputError, match=r"--teacher-momentum 0.25 \(the run has 0.5\)"):
        run(tmp_path / "run", teacher_momentum=0.25, resume=True)
