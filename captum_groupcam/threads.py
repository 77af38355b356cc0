"""One thread at a time in each network, and no trace of a call that is interrupted."""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import threading
import traceback
import types
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar, cast

import torch
from torch.nn import Module

__all__ = ["NOTED", "PROCESS", "current_call", "exclusive", "n_function_modes", "network_locks"]
__all__ += ["of_this_thread", "reached_modules", "run_alone", "surely", "with_own_randomness"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Result = TypeVar("_Result")

#: For what the whole process has one of: torch's global generators and Python's filters of
#: warnings. Taken after the locks of networks, never before.
PROCESS = threading.RLock()

#: What else of the process a call changes for a while: functions that note how it is, and return
#: what puts it back after an interrupt.
NOTED: list[Callable[[], Callable[[], None]]] = []

_REGISTRY = threading.Lock()
#: Networks that share a module share a lock; one that joins several has the locks of all.
_LOCKS: weakref.WeakKeyDictionary[Module, tuple[int, Any]] = weakref.WeakKeyDictionary()
_NUMBERS = itertools.count()
#: How far a forward function is searched for the modules that it calls: steps, objects in all.
_DEPTH, _MOST = 5, 10_000
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
#: What stands for the outermost work of :func:`run_alone` here; None outside of any.
_CALL: ContextVar[object | None] = ContextVar("_CALL", default=None)


def of_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that passes of other threads, such as plain predictions, do not reach.

    Args:
        hook (Callable): As :meth:`torch.nn.Module.register_forward_hook` takes it.

    Returns:
        Callable: The hook in the thread that asks for this; None, for all others.

    Examples::

        >>> seen = []
        >>> of_this_thread(seen.append)("here")
        >>> other = threading.Thread(target=lambda hook=of_this_thread(seen.append): hook("there"))
        >>> other.start(), other.join(), seen
        (None, None, ['here'])
    """
    thread = threading.get_ident()

    def guarded(*args: Any, **kwargs: Any) -> Any:
        return hook(*args, **kwargs) if threading.get_ident() == thread else None

    return guarded


def reached_modules(owner: object) -> list[Module]:
    """The modules that a network, a forward function or an explainer can call.

    Of a function that is what it closes over, its defaults and the globals that it names; of an
    object that is not a module its attributes.

    Args:
        owner (object): The network, function or object.

    Returns:
        list of torch.nn.Module: The modules, each once.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.ReLU())
        >>> reached_modules(lambda inputs: net(inputs) + 1) == [net, net[0]]
        True
    """
    found: dict[int, Module] = {}
    _reach(owner, found, set(), _DEPTH)
    return list(found.values())


def _reach(owner: object, found: dict[int, Module], seen: set[int], depth: int) -> None:
    if isinstance(owner, Module):
        if id(owner) not in found:
            found.update((id(module), module) for module in owner.modules())
    elif depth and id(owner) not in seen and len(seen) < _MOST:
        seen.add(id(owner))
        for part in _parts(owner):
            _reach(part, found, seen, depth - 1)


def _parts(owner: object) -> Iterator[object]:
    """What an object may call modules by."""
    if isinstance(owner, types.FunctionType):
        for cell in owner.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # not bound yet
                continue
        yield from owner.__defaults__ or ()
        yield from (owner.__kwdefaults__ or {}).values()
        yield from (
            owner.__globals__[name] for name in owner.__code__.co_names if name in owner.__globals__
        )
        yield getattr(owner, "__wrapped__", None)
    elif isinstance(owner, types.MethodType):
        yield owner.__self__
        yield owner.__func__
    elif isinstance(owner, functools.partial):
        yield from (owner.func, *owner.args, *owner.keywords.values())
    elif isinstance(owner, (list, tuple)):
        yield from owner
    elif isinstance(owner, dict):
        yield from owner.values()
    elif not isinstance(owner, (type, types.ModuleType, torch.Tensor)):
        yield from getattr(owner, "__dict__", {}).values()


def network_locks(modules: Iterable[Module]) -> list[Any]:
    """The locks of networks, in the order in which every thread takes them.

    Args:
        modules (iterable of torch.nn.Module): All modules of the networks.

    Returns:
        list of RLock: Usually one, which a thread may take several times.

    Examples::

        >>> net = torch.nn.Sequential(torch.nn.ReLU())
        >>> network_locks(net.modules()) == network_locks([net[0]])
        True
    """
    modules = list(modules)
    with _REGISTRY:
        known = {entry for module in modules if (entry := _LOCKS.get(module)) is not None}
        if not known and modules:
            known = {(next(_NUMBERS), threading.RLock())}
        ordered = sorted(known, key=lambda entry: entry[0])
        for module in modules:
            _LOCKS.setdefault(module, ordered[0])
    return [lock for _, lock in ordered]


def _begin_anew() -> None:
    """A forked process has none of the threads that may have held a lock."""
    global PROCESS, _REGISTRY
    PROCESS, _REGISTRY = threading.RLock(), threading.Lock()
    _LOCKS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def run_alone(owners: object, work: Callable[[], _Result], *, draws: bool = False) -> _Result:
    """Does work while no other thread does work with the same modules.

    If it is interrupted, wherever that is, hooks of this library and of Captum, training flags,
    the grad mode and function modes are as they were when the error arrives at the caller.

    Args:
        owners (object): What :func:`reached_modules` takes, or a tuple of such.
        work (Callable): The work.
        draws (bool, optional): Whether it may draw from torch's global generators, see
            :func:`with_own_randomness`. Default: False.

    Returns:
        Any: What the work returns.

    Examples::

        >>> run_alone(torch.nn.ReLU(), lambda: 3)
        3
    """
    if draws:
        work = functools.partial(with_own_randomness, work)
    modules = reached_modules(owners)
    held = functools.partial(
        _holding, network_locks(modules), functools.partial(_cleanly, modules, work)
    )
    if _CALL.get() is not None:
        return held()
    context = copy_context()  # so that no interrupt leaves the call's mark behind
    context.run(_CALL.set, object())
    return context.run(held)


def current_call() -> object | None:
    """What tells one call of the library from another, whatever it calls itself.

    Returns:
        object or None: The same object from the beginning of the outermost work of
        :func:`run_alone` in this thread to its end; None outside of any.

    Examples::

        >>> current_call() is None
        True
        >>> run_alone((), lambda: current_call() is run_alone((), current_call))
        True
    """
    return _CALL.get()


def _holding(locks: list[Any], work: Callable[[], _Result]) -> _Result:
    if not locks:
        return work()
    with locks[0]:  # nothing can come between taking it and the block
        return _holding(locks[1:], work)


def _cleanly(modules: list[Module], work: Callable[[], _Result]) -> _Result:
    put_back = _State(modules).put_back
    filters = list(warnings.filters)
    try:
        return work()
    except BaseException as error:
        if not isinstance(error, Exception):
            # Context managers that an interrupt has left open close now: closed later, when the
            # error is dropped, they would undo what is put back here.
            traceback.clear_frames(error.__traceback__)
            put_filters_back = functools.partial(_put_filters_back, filters)
            surely(put_filters_back, put_filters_back)
        surely(put_back, put_back)
        raise


def _put_filters_back(filters: list[Any]) -> None:
    """Puts filters of warnings back, where an interrupt kept another library from it."""
    if warnings.filters != filters:
        cast(list[Any], warnings.filters)[:] = filters
        with warnings.catch_warnings():  # Python notices as it ends that they have changed
            pass


class _State:
    """What a call changes for a while in modules and in its thread."""

    def __init__(self, modules: list[Module]) -> None:
        self._training = [(module, module.training) for module in modules]
        self._hooks = [
            (hooks, frozenset(hooks))
            for module in modules
            for name in _HOOKS
            if (hooks := getattr(module, name, None)) is not None
        ]
        self._grad = torch.is_grad_enabled()
        self._modes = n_function_modes()
        self._noted = [note() for note in NOTED]

    def put_back(self) -> None:
        for module, training in self._training:
            if module.training is not training:
                module.training = training
        for hooks, before in self._hooks:
            for key in [key for key in list(hooks) if key not in before]:
                # Others may have added some of their own meanwhile.
                if _is_ours(hooks[key]):
                    hooks.pop(key, None)
        if torch.is_grad_enabled() is not self._grad:
            torch.set_grad_enabled(self._grad)
        while n_function_modes() > self._modes:
            torch.overrides._pop_mode()  # type: ignore[no-untyped-call]
        for put_back in self._noted:
            put_back()


def n_function_modes() -> int:
    """How many function modes of torch are in force in this thread.

    Returns:
        int: Their number.

    Examples::

        >>> with torch.overrides.TorchFunctionMode():
        ...     n_function_modes()
        1
    """
    return len(torch.overrides._get_current_function_mode_stack())  # type: ignore[no-untyped-call]


def _is_ours(hook: object) -> bool:
    while isinstance(hook, functools.partial):
        hook = hook.func
    module = str(getattr(hook, "__module__", ""))
    return module.partition(".")[0] in {"captum", "captum_groupcam"}


def with_own_randomness(work: Callable[[], _Result]) -> _Result:
    """Puts the states of torch's global generators back, and lets no other thread do so meanwhile.

    Args:
        work (Callable): The work.

    Returns:
        Any: What the work returns.

    Examples::

        >>> before = torch.get_rng_state()
        >>> _ = with_own_randomness(lambda: torch.rand(2))
        >>> torch.equal(torch.get_rng_state(), before)
        True
    """
    with PROCESS:
        on_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        before = torch.get_rng_state(), torch.cuda.get_rng_state_all() if on_cuda else []

        def put_back() -> None:
            torch.set_rng_state(before[0])
            torch.cuda.set_rng_state_all(before[1])

        return surely(work, put_back)


def surely(work: Callable[[], _Result], afterwards: Callable[[], None]) -> _Result:
    """Does work and what comes afterwards, also where it is interrupted.

    Args:
        work (Callable): The work.
        afterwards (Callable): Is done once more if it is interrupted itself.

    Returns:
        Any: What the work returns.

    Examples::

        >>> surely(lambda: 3, lambda: print("afterwards"))
        afterwards
        3
    """
    done = False
    try:
        return work()
    finally:
        try:
            afterwards()
            done = True
        finally:
            if not done:
                afterwards()


def exclusive(*, draws: bool = False) -> Callable[[_Function], _Function]:
    """Makes a function of a network, or a method of what holds one, do its work alone.

    The function's first argument is what :func:`reached_modules` takes.

    Args:
        draws (bool, optional): As in :func:`run_alone`. Default: False.

    Returns:
        Callable: A decorator.

    Examples::

        >>> @exclusive()
        ... def is_training(network):
        ...     return network.training
        >>> is_training(network=torch.nn.ReLU())
        True
    """

    def decorate(function: _Function) -> _Function:
        first = next(iter(inspect.signature(function).parameters))

        @functools.wraps(function)
        def alone(*args: Any, **kwargs: Any) -> Any:
            owner = args[0] if args else kwargs.get(first)
            return run_alone(owner, functools.partial(function, *args, **kwargs), draws=draws)

        return cast(_Function, alone)

    return decorate
