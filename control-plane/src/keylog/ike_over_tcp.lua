-- Takes TCP 4500 apart as RFC 9329 section 3 frames it and hands the payloads to Wireshark's own dissectors.
-- Written by `portcullis run --keylog` as init.lua of a Wireshark profile.

local ike_tcp = Proto("ike_tcp", "IKE and ESP over TCP (RFC 9329)")

local fields = ike_tcp.fields
fields.prefix = ProtoField.string("ike_tcp.prefix", "Prefix")
fields.length = ProtoField.uint16("ike_tcp.length", "Length")
fields.marker = ProtoField.uint32("ike_tcp.non_esp_marker", "Non-ESP marker", base.HEX)

local isakmp = Dissector.get("isakmp")
local esp = Dissector.get("esp")

local PREFIX = "IKETCP"
local LENGTH_OCTETS = 2
local MARKER_OCTETS = 4

local function starts_with_prefix(tvb, offset)
    return tvb:len() - offset >= #PREFIX and tvb(offset, #PREFIX):string() == PREFIX
end

local function frame_length(tvb, pinfo, offset)
    if starts_with_prefix(tvb, offset) then
        return #PREFIX
    end
    -- A length below 2 is an error and closes the stream; reading on needs at least the field itself.
    return math.max(tvb(offset, LENGTH_OCTETS):uint(), LENGTH_OCTETS)
end

local function dissect_frame(tvb, pinfo, tree)
    local subtree = tree:add(ike_tcp, tvb())
    if starts_with_prefix(tvb, 0) then
        subtree:add(fields.prefix, tvb(0, #PREFIX))
        return tvb:len()
    end
    subtree:add(fields.length, tvb(0, LENGTH_OCTETS))
    local content = tvb:len() - LENGTH_OCTETS
    if content < MARKER_OCTETS then
        return tvb:len()
    end
    local marker = tvb(LENGTH_OCTETS, MARKER_OCTETS)
    if marker:uint() ~= 0 then
        esp:call(tvb(LENGTH_OCTETS):tvb(), pinfo, tree)
    elseif content > MARKER_OCTETS then
        subtree:add(fields.marker, marker)
        isakmp:call(tvb(LENGTH_OCTETS + MARKER_OCTETS):tvb(), pinfo, tree)
    end
    return tvb:len()
end

function ike_tcp.dissector(tvb, pinfo, tree)
    dissect_tcp_pdus(tvb, tree, LENGTH_OCTETS, frame_length, dissect_frame)
    return tvb:len()
end

DissectorTable.get("tcp.port"):add(4500, ike_tcp)
