"""Adapters of MDM and of a latent model: what they change, what they leave, and their files."""

import sys

import pytest
import torch

from data_loaders.skeleton import KIT
from model.families import load_generator
from model.lora import (
    LORA_FILE,
    LoraOptions,
    add_lora,
    frozen_copy,
    has_lora,
    load_lora,
    merged,
    save_lora,
)
from model.merge_lora import Options, merge
from tests.model.latent.test_generator import CAPTIONS, raw_motions, seeded, tiny_mld
from tests.model.tiny import tiny_generator
from utils.errors import UserError

FAMILIES = {"mdm": lambda seed=0: tiny_generator(KIT, seed), "mld": tiny_mld}


def test_without_the_package_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"--lora_rank\) need peft .*pip install '\.\[lora\]'"):
        add_lora(tiny_mld().model, LoraOptions(2), 0)


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    pytest.importorskip("peft")
    return request.param


def errors(generator) -> torch.Tensor:
    latents = generator.encode(raw_motions(), seeded())
    t, noise = torch.tensor([0, 2, 5]), generator.noise(latents, seeded(4))
    return generator.error(latents, t, noise, generator.encode_text(CAPTIONS))


def moved(family: str):
    """A generator whose adapters are no longer new."""
    generator = FAMILIES[family]()
    add_lora(generator.model, LoraOptions(2), seed=1)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in generator.model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    return generator


def test_new_adapters_change_nothing_and_are_all_that_is_trained(family: str) -> None:
    generator = FAMILIES[family]()
    before = errors(generator).detach()
    add_lora(generator.model, LoraOptions(2), seed=1)
    found = errors(generator)
    torch.testing.assert_close(found.detach(), before, rtol=0, atol=1e-6)
    found.sum().backward()
    for name, parameter in generator.model.named_parameters():
        assert ("lora_" in name) == parameter.requires_grad == (parameter.grad is not None), name


def test_the_reference_is_the_network_without_adapters_and_no_copy(family: str) -> None:
    base, policy = errors(FAMILIES[family]()), moved(family)
    reference = policy.frozen()
    assert (errors(policy) - base).abs().max() > 1e-3
    with torch.no_grad():
        torch.testing.assert_close(errors(reference), base, rtol=0, atol=1e-6)
    ours = {p.data_ptr() for p in policy.model.parameters()}
    assert {p.data_ptr() for p in reference.model.parameters()} == ours
    errors(policy).sum().backward()  # the adapters are on again
    assert all(p.grad is not None for p in policy.model.parameters() if p.requires_grad)


@torch.no_grad()
def test_the_merged_network_computes_the_same(family: str) -> None:
    policy = moved(family)
    plain = merged(policy.model)
    assert not has_lora(plain)
    assert has_lora(policy.model)
    expected = FAMILIES[family]().model.state_dict()
    assert plain.state_dict().keys() == expected.keys()
    torch.testing.assert_close(errors(policy.with_model(plain)), errors(policy))
    assert merged(plain) is plain
    copied = frozen_copy(plain)
    assert not any(p.requires_grad for p in copied.parameters())


@torch.no_grad()
def test_files_hold_the_merged_network_and_the_adapters_alone(family: str, tmp_path) -> None:
    policy = moved(family)
    base = FAMILIES[family]().save(tmp_path / "base", 7, None, {"dataset": "kit"})
    tuned = policy.save(tmp_path / "tuned", 9, None, {"dataset": "kit"})
    torch.testing.assert_close(errors(load_generator(tuned)), errors(policy))
    adapters = tmp_path / "tuned" / LORA_FILE
    assert adapters.stat().st_size < base.stat().st_size
    places = {"model_path": str(base), "lora_path": str(adapters)}
    options = Options(**places, output_dir=str(tmp_path / "merged"))
    torch.testing.assert_close(errors(load_generator(merge(options))), errors(policy))


def test_adapters_of_another_network_are_refused(tmp_path) -> None:
    pytest.importorskip("peft")
    save_lora(tmp_path / LORA_FILE, moved("mdm").model)
    with pytest.raises(UserError, match="of another network"):
        load_lora(tmp_path / LORA_FILE, tiny_mld().model)
    (tmp_path / "damaged").write_bytes(b"no tensors")
    for name in ("damaged", "missing"):
        with pytest.raises(UserError, match="holds no adapters"):
            load_lora(tmp_path / name, tiny_mld().model)
