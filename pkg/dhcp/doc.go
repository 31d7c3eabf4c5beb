// Package dhcp is a DHCPv4 server with exactly one client: the guest behind a
// tap. It knows one lease, answers nobody but the guest's MAC address, and
// needs no address on any interface.
//
// The pipe reads from left to right:
//
//	Conn (packet socket on the tap) → frame → message → Responder.Reply (pure)
//	  → options in order, fitted to the guest's size → frame → Conn
//
// Everything left of and right of Reply is free of decisions; Reply is free of
// effects. A Responder is a Lease with all encoded that does not depend on the
// question (Lease.Compile). The Server joins them and keeps what only it can
// know: the state of the lease, counters, the last error.
//
// # Why a packet socket on the tap
//
// It sees the guest's frames before a bridge does. Renewals arrive whatever
// their destination is, no address is needed that could clash with one of the
// pod network, and nobody but the guest can reach the server. Frames leave
// through the tap only, by the rules of RFC 2131 §4.1.
//
// # Use
//
//	conn, err := dhcp.Listen("tap-eth0") // in the pod's network namespace
//	server, err := dhcp.NewServer(conn, lease, log)
//	go server.Serve(ctx)                 // in any
//	status, err := server.Wait(ctx, func(s dhcp.Status) bool { return s.State == dhcp.Bound })
//	for event := range server.Events(ctx) { // offered, bound, renewed, …
package dhcp
