-- Health of a ModelVersion for Argo CD. It is a record and has no status; one that had nothing to be compared with waits for
-- a person's approval.
local annotations = obj.metadata.annotations or {}
local approved = string.match(annotations["anneal.dev/approved-by"] or "", "%S") ~= nil

if obj.spec.admission == "Bootstrap" and not approved then
  return {
    status = "Suspended",
    message = "Nothing was there to compare it with. Approve it with the annotation anneal.dev/approved-by.",
  }
end
return { status = "Healthy", message = obj.spec.version .. " is recorded." }
