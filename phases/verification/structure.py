"""What can be said of a package before a number is computed: each finding is one sentence.

Rules: the contract is what is right; the description, the program and the files are each compared
with it. A package that cannot be read is a finding too, and ends the look at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stillhouse.phases.contract import Context
from stillhouse.phases.mil import (
    Interpreter,
    Package,
    Signature,
    manifest_faults,
    quiet_coremltools,
    unknown_ops,
)
from stillhouse.phases.models.static.interface import Border, border, differences, look, of_contract
from stillhouse.schemas.contract import Contract
from stillhouse.schemas.errors import StillError
from stillhouse.schemas.facts import MlpackageFacts, facts_of
from stillhouse.store.disk.hashing import hash_bytes, hash_file
from stillhouse.store.trees.trees import Entry, tree_bytes

EXPECTED = {"iOS18": (9, "CoreML8")}
"""Per target: the specification version and the opset that coremltools writes."""


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What was found; empty tuples are good. None: it could not be looked at."""

    files: tuple[str, ...]
    schema: tuple[str, ...]
    io: tuple[str, ...] | None = None
    state: tuple[str, ...] | None = None
    unknown: tuple[str, ...] | None = None
    package: Package | None = None

    @property
    def runnable(self) -> bool:
        """Whether numbers computed with this package mean anything."""
        return self.package is not None and not (self.schema or self.io or self.unknown)


def inspect(context: Context, contract: Contract) -> Structure:
    """Look at files, schema, border, states and operations of the package."""
    files = file_faults(context, contract)
    try:
        package = Package.open(context.one("mlpackage").path)
        main = package.function()
    except StillError as error:
        return Structure(files=files, schema=(error.message,))
    unknown = tuple(op.label for op in unknown_ops(main))
    return Structure(
        files=files,
        schema=schema_faults(package, contract, known=not unknown),
        io=io_faults(package, contract),
        state=state_faults(package, contract),
        unknown=unknown,
        package=package,
    )


def file_faults(context: Context, contract: Contract) -> tuple[str, ...]:
    """Digests that are not the recorded ones, and files that the manifest does not account for.

    A fact that the package's record lacks is one that does not agree.
    """
    package, export = context.one("mlpackage"), context.one("export")
    converted = facts_of(package, MlpackageFacts)
    expected = (
        ("the package's files", _tree_digest(package.path), package.digest),
        (
            "the export's SHA-256",
            hash_file(export.path, sha256=True).sha256,
            contract.export_sha256,
        ),
        ("the contract's export", contract.export_digest, export.digest),
        ("the contract's checkpoint", contract.checkpoint, context.one("checkpoint").digest),
        ("the package's export", converted.export, export.digest),
        ("the package's contract", converted.contract, context.one("contract").digest),
    )
    digests = tuple(
        f"{what}: {found} instead of {wanted}"
        for what, found, wanted in expected
        if found != wanted
    )
    try:
        return (*digests, *manifest_faults(package.path))
    except StillError as error:
        return (*digests, error.message)


def schema_faults(package: Package, contract: Contract, *, known: bool) -> tuple[str, ...]:
    """Versions, operands, dtypes and constants; then coremltools' own reader as a second opinion.

    `known`: whether the interpreter knows every operation; the unknown are counted elsewhere.
    """
    found = (package.specification_version, package.opset())
    if found != EXPECTED.get(contract.target):
        return (f"specification {found[0]}, opset {found[1]} for target {contract.target}",)
    if not known:
        return ()
    try:
        Interpreter(package).check()
    except StillError as error:
        return (error.message,)
    return _second_opinion(package)


def _second_opinion(package: Package) -> tuple[str, ...]:
    """Let coremltools read the program back: it infers every type anew."""
    with quiet_coremltools():
        from coremltools.converters.mil.frontend.milproto import load
    try:
        load.load(
            package.specification,
            specification_version=package.specification_version,
            file_weights_dir=str(package.folder / "weights"),
        )
    except Exception as error:  # noqa: BLE001  # whatever its reader raises is its opinion
        return (f"coremltools does not read it: {type(error).__name__}: {error}",)
    return ()


def io_faults(package: Package, contract: Contract) -> tuple[str, ...]:
    """Names, dtypes and shapes of the description and of the program against the contract."""
    wanted = border(of_contract(contract))
    if package.functions != ("main",):
        return (f"its functions are {', '.join(package.functions)} instead of main",)
    sides = (("description", package.description()), ("program", package.signature()))
    return tuple(
        f"in its {where}, {difference}"
        for where, signature in sides
        for difference in differences(_border(signature), wanted)
    )


def state_faults(package: Package, contract: Contract) -> tuple[str, ...]:
    """States that are not read, or not written exactly once a step, or not promised."""
    use = package.state_use()
    promised = {tensor.name for tensor in contract.states}
    return (
        *(f"state {name} is missing" for name in sorted(promised - use.keys())),
        *(f"state {name} is not promised" for name in sorted(use.keys() - promised)),
        *(
            f"state {name} is read {use[name].reads} and written {use[name].writes} times a step"
            for name in sorted(promised & use.keys())
            if use[name].reads == 0 or use[name].writes != 1
        ),
    )


def _border(signature: Signature) -> Border:
    sides = {"input": signature.inputs, "output": signature.outputs, "state": signature.states}
    return {
        f"{side} {name}": look(kind.dtype, kind.shape)
        for side, types in sides.items()
        for name, kind in types.items()
    }


def _tree_digest(folder: Path) -> str:
    """The digest that the store gives this folder; conversion saves no executable file."""
    entries = []
    for file in folder.rglob("*"):
        if file.is_file():
            found = hash_file(file)
            path = file.relative_to(folder).as_posix()
            entries.append(Entry(path=path, size=found.size, digest=found.digest))
    return hash_bytes(tree_bytes(entries)).digest
