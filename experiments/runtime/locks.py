"""One process at a time in a folder, by a lock that ends with the process however it ends."""

import errno
import fcntl
import os
import weakref

from absl import logging

from experiments.runtime import cluster
from experiments.runtime.errors import UserError

_FILE = ".lock"  # where folders cannot be locked themselves
_held: "weakref.WeakValueDictionary[str, Lock]" = weakref.WeakValueDictionary()


class Lock:
    """Keeps other processes out of a folder as long as this object is referred to."""

    def __init__(self, descriptor: int | None):
        """Takes over an open file; None where there is nothing to hold."""
        if descriptor is not None:
            weakref.finalize(self, os.close, descriptor)


def hold(folder: str, flag: str) -> Lock:
    """Locks a folder that is there; within this process, whoever asks holds the same lock.

    Of two hosts that mount one folder, each sees the lock of the other where the file system
    shares locks, as NFS does; a mounted bucket does not.

    Args:
      folder: what to lock.
      flag: the flag that names another one, for the message.

    Returns:
      The lock, to be kept.

    Raises:
      UserError: another process holds it.
    """
    key = os.path.realpath(folder)
    lock = _held.get(key)
    if lock is None:
        lock = _held[key] = Lock(_locked(folder, flag))
    return lock


def make_shared(directory: str) -> Lock | None:
    """Makes the folder, keeps it for this run, and looks whether all hosts see the same one."""
    lock = None
    with cluster.together():
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot use {directory} for checkpoints: {error.strerror}.") from None
        if cluster.is_first():
            lock = hold(directory, "--checkpoint_dir")
    if cluster.size() == 1:
        return lock
    import numpy as np
    from jax.experimental import multihost_utils

    token = os.path.join(directory, ".shared")
    if cluster.is_first():
        open(token, "w").close()
    multihost_utils.sync_global_devices("the token is written")
    seen = multihost_utils.process_allgather(np.asarray(os.path.exists(token)))
    if cluster.is_first():
        os.unlink(token)
    if not np.all(seen):
        raise UserError(
            f"not every host sees the same {directory}; give a --checkpoint_dir they share."
        )
    return lock


def _locked(folder: str, flag: str) -> int | None:
    """A descriptor that holds the lock, or None where there are no locks."""
    descriptor = None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # NFS makes it a lock of bytes, which wants something that is open for writing.
            if error.errno not in (errno.EBADF, errno.EINVAL, errno.EISDIR):
                raise
            os.close(descriptor)
            descriptor = None
            descriptor = os.open(os.path.join(folder, _FILE), os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if descriptor is not None:
            os.close(descriptor)
        if descriptor is not None and error.errno in (errno.EAGAIN, errno.EACCES):
            raise UserError(
                f"{folder} is in use by another process; wait until it has ended, or choose "
                f"another {flag}."
            ) from None
        logging.warning(
            "%s cannot be locked (%s): start no second process there before this one has ended.",
            folder,
            error.strerror,
        )
        return None
    return descriptor
