package dhcp

import (
	"fmt"
	"net"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// responder answers for one lease, of which all is encoded that does not depend
// on the question. It is not changed any more: any goroutine may use it.
type responder struct {
	lease    Lease
	yiaddr   net.IP
	siaddr   net.IP
	server   []byte
	refusal  []byte
	types    [9][]byte
	settings settings
	routed   bool // there are classless static routes
}

// compile makes the responder of a lease, and a note for each thing that can't
// be sent and is left out, as Normalize has it. It fails if the lease is not
// valid.
func (l Lease) compile() (*responder, []string, error) {
	l, left := l.Normalize()
	if err := l.Validate(); err != nil {
		return nil, nil, err
	}
	settings := settingsOf(l)
	r := &responder{
		lease:    l,
		yiaddr:   l.Address.Addr().AsSlice(),
		siaddr:   net.IPv4zero,
		server:   l.Server.AsSlice(),
		refusal:  fmt.Appendf(nil, "the address is %v", l.Address.Addr()),
		settings: settings,
		routed:   settings.value(optRoutes) != nil,
	}
	if a := tftpAddr(l); a != nil {
		r.siaddr = a
	}
	for i := range r.types {
		r.types[i] = []byte{byte(i)}
	}
	return r, left, nil
}

// Reply is what a Server answers to one message of the guest; nobody need serve. The
// error is a lease.DropReason if the message gets no answer for a fault of its own, or
// says what is wrong with the lease. The reply shares memory with the request, and has
// all options that should go out; a Server fits them to the size that the guest takes.
func (l Lease) Reply(req *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, error) {
	r, _, err := l.compile()
	if err != nil {
		return nil, err
	}
	return r.reply(req)
}

// addSettings adds the options that the client's parameter request list (option
// 55) selects, and takes away those that were set by hand to nothing. A client
// without a list gets them all.
func (r *responder) addSettings(options dhcpv4.Options, list []byte, inform bool) {
	var listed [256]bool
	for _, code := range list {
		listed[code] = true
	}
	for i := range r.settings {
		s := &r.settings[i]
		var send bool
		switch s.when {
		case always:
			send = true
		case granted:
			send = !inform // RFC 2131 §4.3.5: no lease time for DHCPINFORM, asked or not
		case unrouted:
			send = !r.routed || !listed[optRoutes]
		case wanted:
			send = listed[s.Code] || len(list) == 0
		case asked:
			send = listed[s.Code]
		}
		switch {
		case len(s.Value) == 0: // set by hand to nothing
			delete(options, s.Code)
		case send:
			options[s.Code] = s.Value
		}
	}
}

// addRouter adds the router to a reply in which there is no room for the
// classless static routes, and tells whether it was not there.
func (r *responder) addRouter(reply *dhcpv4.DHCPv4) bool {
	router := r.settings.value(optRouter)
	if _, ok := reply.Options[optRouter]; ok || router == nil {
		return false
	}
	reply.Options[optRouter] = router
	return true
}

// when says in which replies an option goes.
type when uint8

const (
	always   when = iota // in each
	granted              // with an address
	unrouted             // unless the client lists the classless static routes and gets some (RFC 3442)
	wanted               // if the client lists it, or lists nothing
	asked                // if the client lists it
)

// setting is one option of the lease, encoded.
type setting struct {
	Option
	when when
}
