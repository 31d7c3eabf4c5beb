package dhcp6

import (
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

// purpose is what identity associations are answered for.
type purpose uint8

const (
	solicited purpose = iota // what the client names is a wish
	requested                // it must have been told of what it names
	extended                 // it has what it names
)

// addIAs answers the message's identity associations, and tells whether one of
// them got the address: that which names it, else the first for non-temporary
// addresses. There are no temporary ones and no prefixes.
func (r *responder) addIAs(m, req *dhcpv6.Message, p purpose) (granted bool) {
	var chosen *dhcpv6.OptIANA
	if all := req.Options.IANA(); len(all) > 0 {
		chosen = all[max(0, slices.IndexFunc(all, r.has))]
	}
	for _, o := range req.Options.Options {
		ia, ok := o.(*dhcpv6.OptIANA)
		switch {
		case !ok:
			if answer := refuse(o, iana.StatusNoAddrsAvail, iana.StatusNoPrefixAvail); answer != nil {
				m.Options.Add(answer)
			}
		case ia == chosen && p == requested && !r.has(ia) && ia.Options.OneAddress() != nil:
			m.Options.Add(refuse(ia, iana.StatusNotOnLink, 0)) // RFC 8415 §18.3.2
		case ia == chosen:
			m.Options.Add(r.grant(ia, p))
			granted = true
		case p == extended && len(r.takenBack(ia)) > 0:
			m.Options.Add(&dhcpv6.OptIANA{IaId: ia.IaId, Options: dhcpv6.IdentityOptions{Options: r.takenBack(ia)}})
		default:
			m.Options.Add(refuse(ia, iana.StatusNoAddrsAvail, 0))
		}
	}
	return granted
}

// has tells whether an identity association names the guest's address.
func (r *responder) has(ia *dhcpv6.OptIANA) bool {
	return slices.ContainsFunc(ia.Options.Addresses(), r.isOwn)
}

func (r *responder) isOwn(a *dhcpv6.OptIAAddress) bool { return addrOf(a) == r.lease.Address }

// grant gives the address to an identity association. Others that it has go
// (RFC 8415 §18.3.4).
func (r *responder) grant(ia *dhcpv6.OptIANA, p purpose) *dhcpv6.OptIANA {
	lifetime, t1, t2 := r.lease.times()
	options := dhcpv6.Options{&dhcpv6.OptIAAddress{IPv6Addr: r.lease.Address.AsSlice(), PreferredLifetime: lifetime, ValidLifetime: lifetime}}
	if p == extended {
		options = append(options, r.takenBack(ia)...)
	}
	return &dhcpv6.OptIANA{IaId: ia.IaId, T1: t1, T2: t2, Options: dhcpv6.IdentityOptions{Options: options}}
}

// takenBack are the addresses that the client has and should not have, with
// lifetimes of zero.
func (r *responder) takenBack(ia *dhcpv6.OptIANA) (out dhcpv6.Options) {
	for _, a := range ia.Options.Addresses() {
		if !r.isOwn(a) {
			out.Add(&dhcpv6.OptIAAddress{IPv6Addr: a.IPv6Addr})
		}
	}
	return out
}

// statusTexts are for who reads the client's log.
var statusTexts = map[iana.StatusCode]string{
	iana.StatusNoAddrsAvail:  "there is one address",
	iana.StatusNoPrefixAvail: "there is no prefix",
	iana.StatusNotOnLink:     "not the guest's address",
	iana.StatusNoBinding:     "not the guest's",
}

// refuse answers an identity association with a status code alone: one for
// addresses, one for prefixes. Other options have no answer.
func refuse(o dhcpv6.Option, addresses, prefixes iana.StatusCode) dhcpv6.Option {
	only := func(code iana.StatusCode) dhcpv6.Options {
		return dhcpv6.Options{&dhcpv6.OptStatusCode{StatusCode: code, StatusMessage: statusTexts[code]}}
	}
	switch ia := o.(type) {
	case *dhcpv6.OptIANA:
		return &dhcpv6.OptIANA{IaId: ia.IaId, Options: dhcpv6.IdentityOptions{Options: only(addresses)}}
	case *dhcpv6.OptIATA:
		return &dhcpv6.OptIATA{IaId: ia.IaId, Options: dhcpv6.IdentityOptions{Options: only(addresses)}}
	case *dhcpv6.OptIAPD:
		return &dhcpv6.OptIAPD{IaId: ia.IaId, Options: dhcpv6.PDOptions{Options: only(prefixes)}}
	}
	return nil
}

// times are the address's lifetime as options have it, and when the client renews and
// rebinds: after half and four fifths of it, never if it has no end (RFC 8415 §21.4).
func (l Lease) times() (lifetime, t1, t2 time.Duration) {
	if l.Valid == 0 {
		return infinity, infinity, infinity
	}
	return l.Valid, (l.Valid / 2).Truncate(time.Second), (l.Valid * 4 / 5).Truncate(time.Second)
}
