package dhcp6

import "github.com/virt-launcher-net/virt-launcher-net/pkg/journal"

// Silence is why a message gets no answer. It is an error, and the key under
// which Status counts such messages.
type Silence = journal.Silence

// Reasons to stay silent. The first group is told by Responder.Reply, the second
// only by the Server.
const (
	// Malformed: cut short, or with options that RFC 8415 §16 forbids, or
	// without those that it wants, or with more than a client has a use for.
	Malformed Silence = "malformed"
	// UnexpectedType: not a message that a client sends to a server.
	UnexpectedType Silence = "unexpected-type"
	// OtherServer: the message is for another server.
	OtherServer Silence = "other-server"
	// Unicast: a message that must be sent to all servers was sent to one.
	Unicast Silence = "unicast"
	// NoAddress: a Confirm without an address, which has no answer (RFC 8415 §18.3.3).
	NoAddress Silence = "no-address"

	// BadFrame: not a whole IPv6/UDP packet to port 547, or one larger than any client's.
	BadFrame = journal.BadFrame
	// BadChecksum: the UDP checksum is wrong, or there is none.
	BadChecksum Silence = "bad-checksum"
	// OtherSource: the frame's Ethernet source is not the guest, or its IPv6
	// source neither link-local nor the guest's address.
	OtherSource Silence = "other-source"
	// Relayed: a relay agent's message. Our guest is on our own link.
	Relayed Silence = "relayed"
	// OverBudget: more messages than the budget allows; the kernel dropped them.
	OverBudget = journal.OverBudget
	// Declined: the guest declined the address a moment ago.
	Declined Silence = "declined"
	// Unsent: there was an answer, but the link did not take it.
	Unsent = journal.Unsent
)
