--[[
  AOFlagger strategy of ORCA for the OVRO-LWA: baselines of up to 24 integrations (4 minutes) x 192 channels (4.6 MHz).

  The array sees Cyg A and Cas A a thousand times above the noise of a visibility. Their interference is a strong
  pattern over time and frequency in XX and YY that a sensitive search takes for RFI: a quarter of a clean sky. In XY
  such unpolarized sources are weak. So XY is searched with a low threshold, XX and YY with a high one, which is for
  transmitters that are polarized along X or along Y. YX would add a third to the cost and find nothing else.

  Each search finds what is above twice its threshold, draws a smooth surface through the rest, and finds what is above
  the threshold in the difference. Found in one of them is flagged in all. At the end gaps between flags are closed up
  to a tenth of their length; twice as much would flag whole neighbourhoods of bursts.

  Samples that are flagged already come filled with their neighbours' values (orca/flagging.py), which costs nothing;
  AOFlagger's own way for them (sumthreshold_masked) takes nearly twice as long.

  Detection, false alarms and cost stand in docs/reduction.md, and `orca flagging score` measures them anew.
]]

aoflagger.require_min_version("3.0")

local threshold = { XX = 3, XY = 1, YY = 3 } -- of the SumThreshold method; lower finds more, and more noise and sky
local otherwise = 1.5 -- for data without these correlations

local function residual(amplitude, found)
  local smooth = found:copy()
  smooth:set_visibilities(amplitude)
  local small = aoflagger.downsample(smooth, 3, 1, true)
  aoflagger.low_pass_filter(small, 21, 31, 2.5, 5.0)
  aoflagger.upsample(small, smooth, 3, 1)
  local difference = amplitude - smooth
  difference:set_mask(found)
  return difference
end

local function search(amplitude, level)
  local found = amplitude:copy()
  aoflagger.sumthreshold(found, 2 * level, 2 * level, true, true)
  local channels = found:copy()
  aoflagger.threshold_timestep_rms(found, 3.5)
  aoflagger.threshold_channel_rms(channels, 6.0, true)
  found:join_mask(channels)
  found = residual(amplitude, found)
  aoflagger.sumthreshold(found, level, level, true, true)
  return found
end

function execute(input)
  local all
  local polarizations = input:get_polarizations()
  for _, polarization in ipairs(polarizations) do
    local level = threshold[polarization] or (#polarizations < 4 and otherwise)
    if level then
      local amplitude = input:convert_to_polarization(polarization):convert_to_complex("amplitude")
      local found = search(amplitude, level)
      if all then
        found:join_mask(all)
      end
      all = found
    end
  end
  aoflagger.scale_invariant_rank_operator(all, 0.1, 0.1)
  aoflagger.threshold_timestep_rms(all, 4.0)
  input:join_mask(all)
  input:flag_nans()
end
