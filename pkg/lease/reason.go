package dhcp

import "github.com/virt-launcher-net/virt-launcher-net/pkg/journal"

// Silence is why a message gets no answer. It is an error, and the key under
// which Status counts such messages.
type Silence = journal.Silence

// Reasons to stay silent. The first group is told by Lease.Reply, the second
// only by the Server.
const (
	// NotRequest: a BOOTP reply, or not from an Ethernet client.
	NotRequest Silence = "not-a-request"
	// Relayed: giaddr is set. Our guest is on our own link.
	Relayed Silence = "relayed"
	// OtherClient: chaddr is not the guest's.
	OtherClient Silence = "other-client"
	// Malformed: an option has a length it cannot have, or there is no message type.
	Malformed Silence = "malformed"
	// UnexpectedType: not a message that a client sends to a server.
	UnexpectedType Silence = "unexpected-type"
	// OtherServer: the message is for another server.
	OtherServer Silence = "other-server"
	// NoAddress: a DHCPREQUEST that asks for no address.
	NoAddress Silence = "no-address"
	// NeedsNoReply: DHCPDECLINE and DHCPRELEASE have no answer. Not a fault.
	NeedsNoReply Silence = "needs-no-reply"

	// BadFrame: not a whole IPv4/UDP packet to port 67, or one larger than any client's.
	BadFrame = journal.BadFrame
	// BadChecksum: the IP header's or UDP's checksum is wrong.
	BadChecksum Silence = "bad-checksum"
	// OtherSource: the frame's Ethernet source is not the guest.
	OtherSource Silence = "other-source"
	// OverBudget: more messages than the budget allows; the kernel dropped them.
	OverBudget = journal.OverBudget
	// Declined: the guest declined the address a moment ago.
	Declined Silence = "declined"
	// Unsent: there was an answer, but the link did not take it.
	Unsent = journal.Unsent
)
