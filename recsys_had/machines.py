"""Machines a cluster may be made of: what their makers say of memory, links and arithmetic."""

from dataclasses import dataclass

from recsys_had.errors import ConfigError
from recsys_had.suggest import nearest


@dataclass(frozen=True)
class Machine:
    """A host of several GPUs; figures are per GPU, bandwidths in one direction.

    Args:
        name: for the command line.
        description: the host.
        hbm_gb: memory of a GPU, 1e9 bytes.
        hbm_gb_per_s: of that memory.
        ddr_gb: the host's memory, shared evenly.
        ddr_gb_per_s: of that memory.
        host_link_gb_per_s: between a GPU and the host's memory.
        intra_host_gb_per_s: between GPUs of a host.
        inter_host_gb_per_s: between hosts.
        fp32_tflops: dense arithmetic in single precision, outside the tensor cores.
        source: where the figures are from.
    """

    name: str
    description: str
    hbm_gb: float
    hbm_gb_per_s: float
    ddr_gb: float
    ddr_gb_per_s: float
    host_link_gb_per_s: float
    intra_host_gb_per_s: float
    inter_host_gb_per_s: float
    fp32_tflops: float
    source: str


MACHINES = {
    machine.name: machine
    for machine in (
        Machine(
            name="a100",
            description="8 A100 SXM of 80 GB, NVLink 3, HDR InfiniBand",
            hbm_gb=80,
            hbm_gb_per_s=2_039,
            ddr_gb=256,
            ddr_gb_per_s=51,
            host_link_gb_per_s=32,
            intra_host_gb_per_s=300,
            inter_host_gb_per_s=25,
            fp32_tflops=19.5,
            source="NVIDIA A100 data sheet (2021); DGX A100 user guide: two sockets of 204.8 GB/s, "
            "2 TB, an adapter of 200 Gb/s a GPU",
        ),
        Machine(
            name="h100",
            description="8 H100 SXM of 80 GB, NVLink 4, NDR InfiniBand",
            hbm_gb=80,
            hbm_gb_per_s=3_350,
            ddr_gb=256,
            ddr_gb_per_s=77,
            host_link_gb_per_s=64,
            intra_host_gb_per_s=450,
            inter_host_gb_per_s=50,
            fp32_tflops=67,
            source="NVIDIA H100 data sheet (2023); DGX H100 user guide: two sockets of 307.2 GB/s, "
            "2 TB, an adapter of 400 Gb/s a GPU",
        ),
        Machine(
            name="h200",
            description="8 H200 SXM of 141 GB, NVLink 4, NDR InfiniBand",
            hbm_gb=141,
            hbm_gb_per_s=4_800,
            ddr_gb=256,
            ddr_gb_per_s=77,
            host_link_gb_per_s=64,
            intra_host_gb_per_s=450,
            inter_host_gb_per_s=50,
            fp32_tflops=67,
            source="NVIDIA H200 data sheet (2024); the host as of the DGX H200 user guide",
        ),
    )
}


def machine(name: str) -> Machine:
    """A machine by its name.

    Raises:
        ConfigError: there is none.

    >>> machine("h200").hbm_gb
    141
    """
    if name not in MACHINES:
        raise ConfigError(f"--machine {name}: is not known.{nearest(name, MACHINES)}")
    return MACHINES[name]
