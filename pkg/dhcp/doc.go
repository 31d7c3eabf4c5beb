// Package dhcp is a DHCPv4 server with exactly one client: the guest behind a
// tap. It knows one lease, answers nobody but the guest's MAC address, and
// needs no address on any interface.
//
// A message goes from left to right:
//
//	packet socket on the tap → frame → message → reply (pure)
//	  → options in order, fitted to the guest's size → frame → packet socket
//
// Everything left of and right of the reply is free of decisions; the reply
// ([Lease.Reply]) is free of effects. The server ([NewServer]) joins them and keeps what only it
// can know: the state of the lease, counters, the last error ([lease.Status]).
//
// # Why a packet socket on the tap
//
// It sees the guest's frames before they are passed on. Renewals arrive whatever
// their destination is, no address is needed that could clash with one of the
// pod network, and nobody but the guest can reach the server. Frames leave
// through the tap only, by the rules of RFC 2131 §4.1.
//
// # What is taken from insomniacslk/dhcp, and what not
//
// Its messages, options and encoders of options. Messages are parsed here, since its
// parser copies what a hostile guest sends, leaves out what overflows into the fields
// file and sname (option 52), and refuses clients that send no end option. They are
// built here, since its builder knows neither the order of the client's list nor a
// largest size (option 57), and systemd-networkd 252 loses routes unless a long option
// 121 is split between two of them. Search lists are compressed (RFC 3397), which its
// encoder of names does not do.
//
// # Use
//
//	server, err := dhcp.NewServer("tap-eth0", lease, log) // in the pod's network namespace
//	defer server.Close()
//	go server.Serve(ctx)                                  // in any
//	status, err := server.Wait(ctx, func(s lease.Status) bool { return s.State == lease.Bound })
//	for event := range server.Events(ctx) { // offered, bound, renewed, …
package dhcp
