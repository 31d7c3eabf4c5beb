package dhcp6

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/rfc1035label"

	"github.com/virt-launcher-net/virt-launcher-net/internal/normalize"
)

const (
	// maxRetry is how long a guest waits at most until it asks again while
	// nobody answers: the least that may be set, so that it has its network soon
	// after a server is there again (RFC 8415 §21.24, §21.25).
	maxRetry = 60 * time.Second
	// refresh is how long settings hold that were asked for without an address
	// (RFC 8415 §21.23).
	refresh = 24 * time.Hour
)

// answers are the options that make a message an answer; all others are settings.
var answers = []dhcpv6.OptionCode{
	dhcpv6.OptionClientID, dhcpv6.OptionServerID, dhcpv6.OptionIANA, dhcpv6.OptionIATA, dhcpv6.OptionIAPD,
	dhcpv6.OptionStatusCode, dhcpv6.OptionRapidCommit, dhcpv6.OptionPreference,
}

// settingsOf encodes the options that do not depend on the question.
func settingsOf(l Lease) (out dhcpv6.Options) {
	add := func(code dhcpv6.OptionCode, value []byte) {
		if len(value) > 0 {
			out.Add(&dhcpv6.OptionGeneric{OptionCode: code, OptionData: value})
		}
	}
	add(dhcpv6.OptionDNSRecursiveNameServer, normalize.Wire(l.DNS))
	add(dhcpv6.OptionDomainSearchList, (&rfc1035label.Labels{Labels: l.Search}).ToBytes())
	for _, a := range l.NTP { // one each (RFC 5908 §4)
		server := dhcpv6.NTPSuboptionSrvAddr(a.AsSlice())
		add(dhcpv6.OptionNTPServer, (&dhcpv6.OptNTPServer{Suboptions: dhcpv6.Options{&server}}).ToBytes())
	}
	add(dhcpv6.OptionSNTPServerList, normalize.Wire(l.NTP))
	add(dhcpv6.OptionSolMaxRT, seconds(maxRetry))
	add(dhcpv6.OptionInfMaxRT, seconds(maxRetry))
	return out
}

// addSettings adds the options that the client asks for, in our order. One that
// lists none gets what every client has a use for.
func (r *responder) addSettings(m, req *dhcpv6.Message) {
	list := req.Options.RequestedOptions()
	if list == nil {
		list = dhcpv6.OptionCodes{dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionDomainSearchList}
	}
	for _, o := range r.settings {
		if slices.Contains(list, o.Code()) {
			m.Options.Add(o)
		}
	}
	if slices.Contains(list, dhcpv6.OptionInformationRefreshTime) && req.MessageType == dhcpv6.MessageTypeInformationRequest {
		m.Options.Add(dhcpv6.OptInformationRefreshTime(refresh))
	}
	if slices.Contains(list, dhcpv6.OptionBootfileURL) {
		r.addBoot(m, req)
	}
	if o := req.Options.GetOne(dhcpv6.OptionFQDN); o != nil && slices.Contains(list, dhcpv6.OptionFQDN) {
		m.Options.Add(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionFQDN, OptionData: r.name(o.ToBytes())})
	}
}

// Flags of a client FQDN (RFC 4704 §4.1).
const (
	fqdnServerUpdates = 0x01 // S
	fqdnOverridden    = 0x02 // O
	fqdnNoUpdates     = 0x04 // N
)

// name answers a client FQDN: we register no names, whoever should. The name is
// the lease's, else the guest's own.
func (r *responder) name(asked []byte) []byte {
	flags := byte(fqdnNoUpdates)
	if len(asked) > 0 && asked[0]&fqdnServerUpdates != 0 {
		flags |= fqdnOverridden
	}
	if r.lease.Hostname != "" {
		name := (&rfc1035label.Labels{Labels: []string{r.lease.Hostname}}).ToBytes()
		return append([]byte{flags}, name[:len(name)-1]...) // it may go on: without the root
	}
	if len(asked) == 0 {
		return []byte{flags}
	}
	return append([]byte{flags}, asked[1:]...)
}

func seconds(d time.Duration) []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(d/time.Second))
}
