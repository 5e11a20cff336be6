-- Health of a RetrainJob for Argo CD. A run whose gates did not pass is Healthy: it did what it is for, and production is
-- unchanged. The message says so.
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

local failed = condition("Failed") or condition("Stalled")
if failed ~= nil then
  return health("Degraded", failed)
end

local complete = condition("Complete")
if complete ~= nil then
  return health("Healthy", complete)
end

local reconciling = condition("Reconciling") or { reason = "Pending", message = "The operator has not said anything yet." }
-- A queue has put the child Job off.
if reconciling.reason == "Suspended" then
  return health("Suspended", reconciling)
end
return health("Progressing", reconciling)
