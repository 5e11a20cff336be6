-- Health of a ModelRollout for Argo CD. Conditions decide, and not the phase, so that a later phase needs no new script.
-- A version that failed and was rolled back is Degraded although the stable one serves: what Git asks for is not there.
local status = obj.status or {}

local function condition(type)
  for _, c in ipairs(status.conditions or {}) do
    if c.type == type and c.status == "True" then
      return c
    end
  end
  return nil
end

local function health(name, c)
  return { status = name, message = c.reason .. ": " .. c.message }
end

if status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "The operator has not looked at this spec yet." }
end

local stalled = condition("Stalled")
if stalled ~= nil then
  -- It does nothing wrong: a person or a run has to bring the first version.
  if stalled.reason == "NoVersion" or stalled.reason == "ApprovalMissing" then
    return health("Suspended", stalled)
  end
  return health("Degraded", stalled)
end

local rolledBack = condition("RolledBack")
if rolledBack ~= nil and rolledBack.reason ~= "CandidateWithdrawn" and rolledBack.reason ~= "RolledBackByHand" then
  return health("Degraded", rolledBack)
end

local paused = condition("Paused")
if paused ~= nil then
  return health("Suspended", paused)
end

local ready = condition("Ready")
if ready ~= nil then
  return health("Healthy", ready)
end

-- A person has to say something, or a window to close. What serves is Healthy meanwhile, as said above.
local waits = condition("AwaitingApproval") or condition("AwaitingPromotion") or condition("Frozen")
if waits ~= nil then
  return health("Suspended", waits)
end

return health("Progressing", condition("Reconciling") or { reason = "Pending", message = "The operator has not said anything yet." })
