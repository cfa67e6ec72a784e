"""How good a calibration must be to be used: limits, with the reason for each default."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class QualityLimits(BaseModel):
    """Limits of a bandpass and of a delay table. Shares are of what was not left out beforehand, 0 to 1.

    The defaults leave room. By the radiometer equation, 24 integrations on Cyg A scatter by 0.002 and 0.1 deg at 73 MHz
    and by 0.04 and 2.5 deg at 13 MHz (150 baselines an antenna, 5070 Jy at 55 MHz for the array); noise alone has more
    than 0.3 and 40 deg.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_flagged_share: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Fail if more of the solutions are flagged; interference and dead antennas take 5 to 15 %",
    )
    max_left_out_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Fail if more of the antennas were left out beforehand, warn above half of it: what is left is not "
        "the telescope, whoever is to blame",
    )
    min_antennas_share: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="Fail if fewer of the antennas have solutions, in either polarization",
    )
    max_channels_flagged_share: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Fail if in more of the channels no antenna has a solution: so much of the band is lost",
    )
    min_median_snr: float = Field(
        default=5.0,
        ge=0,
        description="Fail if the median signal-to-noise ratio of the solutions is less; solutions below 3 are noise",
    )
    max_scatter: float = Field(
        default=0.15,
        gt=0,
        description="Fail if amplitudes scatter more from channel to channel, relative, median over the antennas",
    )
    max_phase_scatter_deg: float = Field(
        default=10.0,
        gt=0,
        description="Fail if phases scatter more from channel to channel, in degrees, median over the antennas",
    )
    max_amplitude_spread: float = Field(
        default=0.6,
        gt=0,
        description="Fail if the amplitudes of the antennas differ more, relative (robust standard deviation)",
    )
    max_polarization_ratio: float = Field(
        default=2.0,
        ge=1,
        description="Warn if the median amplitudes of X and Y differ by a larger factor: the sky model is in doubt",
    )
    max_change: float = Field(
        default=0.2,
        gt=0,
        description="Warn if amplitudes changed more since the last good bandpass, relative, median of the antennas",
    )
    outlier_sigma: float = Field(
        default=7.0,
        gt=0,
        description="An antenna or a board is an outlier if it is off the median by more robust standard deviations",
    )
    outlier_scatter: float = Field(
        default=5.0,
        gt=1,
        description="An antenna is an outlier if it scatters this many times more than the median antenna",
    )
    alarm_ns: float = Field(
        default=100.0,
        gt=0,
        description="Alarm if the delay of an antenna differs by more from that of the last good table, in ns",
    )
    max_moved_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Fail if the delays of more of the antennas moved by more than the alarm",
    )
    board_shift_ns: float = Field(
        default=4.0,
        gt=0,
        description="Warn if the delays of a board moved together by more, in ns; a sample of its digitizer is 5.1 ns",
    )
    max_delay_spread_ns: float = Field(
        default=200.0,
        gt=0,
        description="Fail if delays spread more, in ns (robust standard deviation); a fit to noise gives a microsecond",
    )
    max_delay_error_ns: float = Field(
        default=10.0,
        gt=0,
        description="Fail if the median error of the delays is more, in ns; 10 ns turn the edge of a subband by 8 deg",
    )
