"""From MODULE:FACTORY to an entered pool, and a line for each way in which that cannot work.

Owns what a host may name. What its code raises beyond that is for `child`.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

from prewarmkit import ConfigurationError, PrewarmPool

__all__ = ["Factory", "FactoryError", "load", "open_pool"]

Factory = Callable[[], Any]

_FORM = "decorate an async generator function that yields the pool with @contextlib.asynccontextmanager"


class FactoryError(ConfigurationError):
    """MODULE:FACTORY leads to no pool; the message says where it ends."""


def load(module: str, name: str) -> Factory:
    """Import the module, the current directory first, and find the factory.

    Raises:
        FactoryError: There is no such thing, or it cannot be called.
    """
    here = os.getcwd()  # noqa: PTH109 - sys.path holds text
    if here not in sys.path:
        sys.path.insert(0, here)
    factory: Any = _import(module)
    place = f"{module}:{name}"
    for part in name.split("."):
        try:
            factory = getattr(factory, part)
        except AttributeError:
            raise FactoryError(
                f"{place}: {_file(module)} has no {name!r}{_close_to(factory, part)}"
            ) from None
    _check(place, factory)
    return factory  # type: ignore[no-any-return]


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise FactoryError(
                f"There is no module {error.name!r}: looked in {os.getcwd()} and on sys.path."  # noqa: PTH109
            ) from None
        raise _failed(module, f"{error}: install it, or correct the import", error) from error
    except ImportError as error:
        raise _failed(module, str(error), error) from error
    except SyntaxError as error:
        raise FactoryError(
            f"{module} cannot be imported: {error.msg} ({error.filename}, line {error.lineno})."
        ) from error
    except Exception as error:
        raise _failed(module, f"{type(error).__name__}: {error}", error) from error


def _failed(module: str, what: str, error: BaseException) -> FactoryError:
    """The line for a module that fails while it is imported; names the last line of its own making."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen", importlib.__path__[0])) and frame.filename != __file__
    ]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return FactoryError(f"{module} cannot be imported: {what}{where}.")


def _file(module: str) -> str:
    return getattr(sys.modules[module], "__file__", None) or module


def _close_to(holder: object, name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, [each for each in dir(holder) if not each.startswith("_")], n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


def _check(place: str, factory: Any) -> None:
    if isinstance(factory, PrewarmPool):
        raise FactoryError(
            f"{place} is a pool and no function that makes one: each process needs its own, so {_FORM}."
        )
    if not callable(factory):
        raise FactoryError(f"{place} is of type {type(factory).__name__} and cannot be called: {_FORM}.")
    if inspect.isasyncgenfunction(factory):
        raise FactoryError(f"{place} is an async generator function as it stands: {_FORM}.")
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise FactoryError(
            f"{place} is called without arguments, and cannot be ({error}): {_FORM}."
        ) from None
    except ValueError:  # a callable that shows no signature
        pass


@asynccontextmanager
async def open_pool(place: str, factory: Factory) -> AsyncGenerator[PrewarmPool, None]:
    """The pool of a factory, entered; left with the block.

    Raises:
        FactoryError: What the factory gives is no pool and yields none.
    """
    made = factory()
    if inspect.isawaitable(made) and not isinstance(made, AbstractAsyncContextManager):
        made = await made
    if not isinstance(made, AbstractAsyncContextManager):
        raise FactoryError(f"{place} returns {_type(made)}, which is no async context manager: {_FORM}.")
    async with cast("AbstractAsyncContextManager[object]", made) as pool:
        if not isinstance(pool, PrewarmPool):
            raise FactoryError(f"{place} yields {_type(pool)}, which is no PrewarmPool: yield the pool.")
        yield pool


def _type(value: object) -> str:
    # Never its repr: what a host has at hand there may well be a secret.
    return "None" if value is None else f"an object of type {type(value).__name__}"
