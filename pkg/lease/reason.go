package lease

import (
	"errors"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
)

// ErrGone means that the interface that a server serves on does not exist any more,
// or was moved to another network namespace.
var ErrGone = packet.ErrGone

// ErrClosed means that the server was closed: while it served, or before.
var ErrClosed = errors.New("the server is closed")

// DropReason is why a frame or message of the guest gets no answer. It is an error,
// and the key under which a status counts them.
type DropReason string

func (r DropReason) Error() string { return "no reply: " + string(r) }

// Reasons of all protocols.
const (
	// DropBadFrame: not a whole packet of the protocol, or one larger than any client's.
	DropBadFrame DropReason = "bad-frame"
	// DropBadChecksum: a checksum is wrong, or there is none where there must be one.
	DropBadChecksum DropReason = "bad-checksum"
	// DropOtherSource: the frame's Ethernet source is not the guest, or its IPv6
	// source cannot be answered.
	DropOtherSource DropReason = "other-source"
	// DropMalformed: the message is cut short, or has what its RFC forbids, or lacks
	// what it wants.
	DropMalformed DropReason = "malformed"
	// DropOverBudget: more messages than the budget allows; the kernel dropped them.
	DropOverBudget DropReason = "over-budget"
	// DropUnsent: there was an answer, but the link did not take it.
	DropUnsent DropReason = "unsent"
)

// Reasons of DHCPv4 and DHCPv6.
const (
	// DropRelayed: a relay agent's message. The guest is on the server's own link.
	DropRelayed DropReason = "relayed"
	// DropUnexpectedType: not a message that a client sends to a server.
	DropUnexpectedType DropReason = "unexpected-type"
	// DropOtherServer: the message is for another server.
	DropOtherServer DropReason = "other-server"
	// DropNoAddress: a message about an address that names none, or not the guest's.
	DropNoAddress DropReason = "no-address"
	// DropDeclined: the guest declined the address a moment ago.
	DropDeclined DropReason = "declined"
)

// Reasons of one protocol.
const (
	// DropNotRequest: by DHCPv4, a reply, or not from an Ethernet client.
	DropNotRequest DropReason = "not-a-request"
	// DropOtherClient: chaddr of DHCPv4 is not the guest's.
	DropOtherClient DropReason = "other-client"
	// DropUnicast: a DHCPv6 message that must be sent to all servers was sent to one.
	DropUnicast DropReason = "unicast"
	// DropBadHopLimit: a router has forwarded the solicitation. It is not from this link.
	DropBadHopLimit DropReason = "bad-hop-limit"
)
