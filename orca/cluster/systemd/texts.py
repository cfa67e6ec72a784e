"""The texts of the systemd units: what starts a part, what stops it, and how much of the machine it may have."""

from __future__ import annotations

MARK = "# Made by `orca cluster units`. What has to be different goes into a drop-in: systemctl edit."

SERVICE = """\
[Unit]
Description=ORCA {what}
After=network-online.target remote-fs.target{after}
Wants=network-online.target
PartOf=orca.target
# Other parts may be away for as long as they like: it is tried for ever.
StartLimitIntervalSec=0

[Service]
Type=exec
User={user}
# Everything else, passwords above all, is read from this file and from work_pools.yaml beside it.
Environment=ORCA_CONF={configuration} ORCA_NODE={host}
ExecStart={venv}/bin/orca cluster start {part}
{life}Restart=always
RestartSec=2
LimitNOFILE=65536
# What crashes may hold 50 GB.
LimitCORE=0
NoNewPrivileges=yes
ProtectSystem=full
ProtectControlGroups=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
Slice=orca.slice
{cores}"""

ALARMS = """\
[Unit]
Description=ORCA look at alarms
After=network-online.target remote-fs.target
Wants=network-online.target

[Service]
Type=oneshot
User={user}
Environment=ORCA_CONF={configuration} ORCA_NODE={host}
ExecStart={venv}/bin/orca alarms check{only}
TimeoutStartSec=10min
NoNewPrivileges=yes
ProtectSystem=full
Slice=orca.slice
{cores}"""
ALARMS_TIMER = """\
[Unit]
Description=ORCA looks at alarms, also while Prefect's server is away
PartOf=orca.target

[Timer]
OnCalendar=*:0/5
RandomizedDelaySec=60
"""
QUICK_END = """\
KillMode=mixed
TimeoutStopSec=30
"""
TRIGGER = """\
# What it has in hand goes back to the queues.
TimeoutStopSec=30
# Where no RabbitMQ is configured, trying again changes nothing.
RestartPreventExitStatus=2
"""
DASK = """\
# It finishes the task that it runs. Without a scheduler, or when that takes too long, it is told to go at once, and the
# task begins again on another node. MAINPID is empty when it has ended by itself.
ExecStop=-/bin/sh -c '[ -z "$$MAINPID" ] || exec {venv}/bin/orca cluster stop dask %i'
TimeoutStopSec=30min
# SIGTERM is for Dask's nanny, which ends the rest.
KillMode=mixed
# A program that takes too much memory is killed, and its task ends with that; the worker lives on.
OOMPolicy=continue
# Where the whole machine is short of memory, this goes before others.
OOMScoreAdjust=500
MemorySwapMax=0
Nice=5
IOSchedulingClass=best-effort
IOSchedulingPriority=6
"""
FLOWS = """\
# SIGTERM: it takes no new flow runs and waits for those that run. They are processes of their own, which outlive it:
# it may be killed at any time, and the next one looks after them.
KillMode=process
TimeoutStopSec=1h
# A flow run that takes too much memory is killed, marked and tried again; the others live on.
OOMPolicy=continue
"""
CORES = """\
# The cores before are the recorders', see reserved_cores in work_pools.yaml.
CPUAffinity={first}-{last}
"""
TARGET = """\
[Unit]
Description=ORCA on {host}
{wants}
[Install]
WantedBy=multi-user.target
"""
SLICE = """\
[Unit]
Description=All of ORCA

[Slice]
CPUAccounting=yes
MemoryAccounting=yes
"""
WEIGHTS = """\
# The recorders come first where both want the same core or disk (others: 100).
CPUWeight=20
IOWeight=20
"""
MEMORY = """\
# Its largest task, {task:g} GB, and {own:g} GB of the process that runs it.
[Service]
MemoryMax={limit}G
"""
