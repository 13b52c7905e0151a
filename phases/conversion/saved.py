"""What a saved package says, against the contract.

Core ML matches the description with the program by name, at run time, and coremltools accepts a
package whose two disagree; so both are read and compared with the contract. A decoder whose states
are never written converts silently and answers wrongly from its second token on.
"""

from __future__ import annotations

from stillhouse.phases.mil import Package, Signature
from stillhouse.phases.models.static.interface import Border, border, differences, look, of_contract
from stillhouse.schemas.contract import Contract


def package_differences(package: Package, contract: Contract) -> tuple[str, ...]:
    """Say how names, dtypes and shapes differ from the contract's; empty when they do not."""
    wanted = border(of_contract(contract))
    found = [
        f"in its {where}, {difference}"
        for where, signature in (
            ("description", package.description()),
            ("program", package.signature()),
        )
        for difference in differences(_border(signature), wanted)
    ]
    if package.functions != ("main",):
        found.append(f"its functions are {', '.join(package.functions)} instead of main")
    return tuple(found)


def missing_writes(package: Package, contract: Contract) -> tuple[str, ...]:
    """Name the contract's states that no operation writes."""
    use = package.state_use()
    return tuple(t.name for t in contract.states if t.name not in use or use[t.name].writes == 0)


def _border(signature: Signature) -> Border:
    sides = (
        ("input", signature.inputs),
        ("output", signature.outputs),
        ("state", signature.states),
    )
    return {
        f"{side} {name}": look(kind.dtype, kind.shape)
        for side, types in sides
        for name, kind in types.items()
    }
