"""Builds engines on a board over SSH. Needs the extra `remote`; nothing else of the exporter imports it."""

from .address import Address, parse_address
from .build import RemoteBuild, RemoteEngine, build_remote
from .connection import Patience
from .transfer import Transfer

__all__ = ["Address", "Patience", "RemoteBuild", "RemoteEngine", "Transfer", "build_remote", "parse_address"]
