"""From a command's config, a frozen dataclass, to its options on the command line.

The fields are the options and the texts under them are their help. A field's metadata may hold
`aliases` (further spellings, with their dashes), `positional` (true if the value stands without
the option's name), `keywords` (values that mean something besides a file's name) and `group`
(heading in the help).
"""

import ast
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache, partial
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from cyclopts import Group, Parameter, Token

_COMMON = Group("Common options", sort_key=(2, 0))


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """Options of every command; they change nothing in the results."""

    quiet: bool = False
    """Print warnings and errors only."""
    verbose: bool = False
    """Print what otherwise only goes to run.log."""
    cpu: bool = False
    """Use no GPU."""


def read_attribute_texts(config: type) -> dict[str, str]:
    """Read the texts under the fields of a class, its base classes included.

    Python throws these texts away, so they are read from the source file.
    """
    texts: dict[str, str] = {}
    for base in reversed(config.__mro__[:-1]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        if isinstance(definition, ast.ClassDef):
            texts.update(_read_texts(definition.body))
    return texts


def _read_texts(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    for statement, following in itertools.pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            yield statement.target.id, " ".join(following.value.value.split())


def normalize(tokens: Sequence[str]) -> list[str]:
    """Write commands and option names with dashes; values stay as they are.

    Example:
        >>> normalize(["compute_state", "my_run", "--latent_points=my_file.txt"])
        ['compute-state', 'my_run', '--latent-points=my_file.txt']
    """
    normalized = []
    for position, token in enumerate(tokens):
        name, equals, value = token.partition("=")
        if token.startswith("--") or position == 0:
            token = name.replace("_", "-") + equals + value
        normalized.append(token)
    return normalized


def make_command(
    config: type, run: Callable[[Any, CommonOptions], Any], summary: str
) -> Callable[..., Any]:
    """Make a function that has a config's fields as parameters, for the command line to call.

    Args:
        config: Frozen dataclass of the options.
        run: Called with the config and the common options.
        summary: What the command does.
    """
    own = [_make_parameter(each, config) for each in fields(config)]
    common = [_make_parameter(each, CommonOptions) for each in fields(CommonOptions)]
    # Python wants positional parameters first, and those without a default before the others.
    order = sorted(own + common, key=lambda p: (p.kind, p.default is not p.empty))
    signature = inspect.Signature(order)

    def command(*positional: Any, **named: Any) -> Any:  # noqa: ANN401
        given = signature.bind(*positional, **named).arguments
        around = {p.name: given.pop(p.name) for p in common if p.name in given}
        return run(config(**given), CommonOptions(**around))

    command.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = {p.name: p.annotation for p in order}
    command.__doc__ = summary
    return command


def _make_parameter(option: Field, config: type) -> inspect.Parameter:
    hint = get_type_hints(config)[option.name]
    positional = option.metadata.get("positional", False)
    default = option.default
    if option.default_factory is not MISSING:
        default = option.default_factory()
    return inspect.Parameter(
        option.name,
        inspect.Parameter.POSITIONAL_ONLY if positional else inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if default is MISSING else default,
        annotation=Annotated[hint, _describe(option, config, hint)],
    )


def _describe(option: Field, config: type, hint: Any) -> Parameter:  # noqa: ANN401
    metadata = option.metadata
    short = ["-o"] if option.name == "output" else []
    names = ["--" + option.name.replace("_", "-"), *short, *metadata.get("aliases", ())]
    several = metadata.get("positional") and get_origin(hint) is tuple  # commas belong to names
    return Parameter(
        name=None if metadata.get("positional") else names,
        help=read_attribute_texts(config).get(option.name),
        group=_COMMON if config is CommonOptions else _find_group(metadata.get("group"), config),
        negative="" if config is CommonOptions else None,
        negative_iterable=(),
        show_default=_show_list if isinstance(option.default, tuple) else None,
        converter=None if several else _make_converter(hint, metadata.get("keywords", ())),
    )


@cache
def _find_group(heading: str | None, config: type) -> Group:
    """Give options without a heading theirs; headings follow in the order of the options."""
    if heading is None:
        return Group("Options", sort_key=(0, 0))
    headings = list(dict.fromkeys(option.metadata.get("group") for option in fields(config)))
    return Group(heading, sort_key=(1, headings.index(heading)))


def _make_converter(
    hint: Any,  # noqa: ANN401
    keywords: Sequence[str],
) -> Callable[[Any, Sequence[Token]], Any] | None:
    """Return what reads an option's text where cyclopts would read it in another way."""
    for part in (hint, *get_args(hint)):
        if get_origin(part) is Literal:
            return partial(_read_keyword, get_args(part), only=True)
        if get_origin(part) is tuple and get_args(part)[-1] is Ellipsis:
            return partial(_read_list, get_args(part)[0])
    return partial(_read_keyword, keywords, only=False) if keywords else None


def _show_list(default: tuple[Any, ...]) -> str:
    return ",".join(str(item) for item in default)


def _read_list(item: type, _: Any, tokens: Sequence[Token]) -> tuple[Any, ...]:  # noqa: ANN401
    """Read items that are separated by commas or given with the option repeated."""
    return tuple(item(part) for token in tokens for part in token.value.split(",") if part)


def _read_keyword(keywords: Sequence[str], _: Any, tokens: Sequence[Token], only: bool) -> str:  # noqa: ANN401
    """Read a keyword, whether it is written with dashes or underscores."""
    text = tokens[0].value
    spellings = {keyword.replace("_", "-").lower(): keyword for keyword in keywords}
    found = spellings.get(text.replace("_", "-").lower())
    if found is None and only:
        raise ValueError(f"expected one of {', '.join(keywords)}, got {text!r}")
    return text if found is None else found
