"""The methods of the paper's tables, as data: which pairs, which gate, which weight.

Every method minimises the same loss (`sopo_loss`), with T omega left out here for brevity,

    -log sigmoid( -( weight L(theta, ref, preferred) - gate beta L(theta, ref, unpreferred) ) )

where L(theta, ref, x) is the policy's denoising error of x minus the reference's. Eq. 17 has
weight = beta_w(preferred) and gate = r(unpreferred) < tau; Diffusion-DPO (Wallace et al. 2024) has
weight = beta and gate = 1.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pairing:
    """One kind of pair.

    preferred: the clip of the ``dataset``, the ``best`` of K motions that the policy has just
    generated, or the ``fixed`` best of K that the reference generated beforehand. unpreferred: the
    ``worst`` of the policy's K, or the ``fixed`` worst. gate, whether the unpreferred term counts:
    ``always``, only ``below_tau``, or ``never``. weighted: beta_w instead of beta. ranked_by: the
    kind of reward that must have ranked the fixed motions, where the method's name says so.
    """

    preferred: str
    unpreferred: str
    gate: str = "always"
    weighted: bool = False
    ranked_by: str = ""

    @property
    def online(self) -> bool:
        """Does the current policy generate motions for it?"""
        return self.unpreferred == "worst"

    @property
    def name(self) -> str:
        return f"{self.preferred}_{self.unpreferred}"


OFFLINE_DPO = Pairing("dataset", "fixed")
ONLINE_DPO = Pairing("best", "worst")

# A method's loss is the sum over its kinds of pair; none = plain denoising of the dataset.
METHODS: dict[str, tuple[Pairing, ...]] = {
    "sopo": (Pairing("dataset", "worst", gate="below_tau", weighted=True),),  # Eq. 17
    "dsopo": (Pairing("dataset", "worst"),),  # Eq. 9 and 12
    "usopo": (Pairing("dataset", "worst", gate="below_tau"),),  # Eq. 13
    "sopo_wo_vu": (Pairing("dataset", "worst", gate="never", weighted=True),),  # Table 4
    "offline_dpo": (OFFLINE_DPO,),  # Table 5
    "online_dpo": (ONLINE_DPO,),  # Table 5
    "combined_dpo": (OFFLINE_DPO, ONLINE_DPO),  # Table 5
    "modipo_t": (Pairing("fixed", "fixed", ranked_by="tmr"),),  # Table 1
    "modipo_o": (ONLINE_DPO,),  # Table 1: both motions from the current policy
    "modipo_g": (Pairing("fixed", "fixed", ranked_by="evaluator"),),  # Table 1
    "sft": (),  # the control: the same number of steps without any preference
}


def needs_fixed_pairs(method: str) -> bool:
    return any(not pairing.online for pairing in METHODS[method])
