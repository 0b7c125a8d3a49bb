"""Data sets of the Hugging Face hub, through its library `datasets`, which downloads and keeps them."""

from pathlib import Path
from typing import Any

from raydistill.config.data_settings import DataSettings
from raydistill.data.raw import RawData
from raydistill.data.splits import split_of, train_and_test
from raydistill.data.tables import raw_of
from raydistill.system.errors import UserError


def read_hub(config: DataSettings, name: str) -> RawData:
    """Read the data set NAME of the hub, as USER/NAME, or a local folder that `datasets.load_dataset` takes.

    Only data are read; code in a data set is never run.

    Raises:
        UserError: the library is missing, or the data cannot be had or hold no images with classes.
    """
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"dataset={config.dataset}: needs the library datasets; install raydistill[hf]") from error

    def load(split: str | None) -> Any:
        try:
            return datasets.load_dataset(name, config.data.hub.config, revision=config.data.hub.revision, split=split)
        except Exception as error:  # The network, the hub and the file formats have many errors.
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"dataset={config.dataset}: cannot be had ({reason})") from error

    if config.data.hub.split is not None:
        splits = config.data.hub.split.split(",")
        if len(splits) > 2:
            raise UserError(f"data.hub.split={config.data.hub.split}: should be TRAIN or TRAIN,TEST")
        groups = [[load(split.strip())] for split in splits]
    else:
        found: dict[str | None, list[Any]] = {}
        for split, part in load(None).items():
            found.setdefault(split_of(split), []).append(part)
        groups = train_and_test(found, config.dataset)
    parts = [datasets.concatenate_datasets(group).flatten_indices() for group in groups]
    tables = [part.data.table for part in parts]
    return raw_of(tables, parts[0].features.arrow_schema, config, config.dataset, Path())
