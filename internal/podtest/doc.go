// Package podtest makes pods, nodes, taps and guests for tests and for the
// demo, out of real kernel objects in network namespaces of their own.
//
// A [NS] is a namespace that ends with the process. [NewPod] builds a node and
// a pod the way a given CNI leaves them ([Shape]); [AddCNI] lets real plugins
// do it. [OpenTap] opens the guest's end of a tap, [NewGuest] connects a whole
// namespace to it, so that real tools run behind the pod's tap. [Snapshot]
// and [StartCapture] are outside witnesses: they report what ip(8), bridge(8),
// tc(8), nft(8) and tcpdump(8) say of a namespace, not our own reading of it.
//
// Functions that take a [testing.TB] end the test on errors and clean up after
// it. The others return errors and leave cleaning up to the caller. Nothing
// here writes outside temporary directories, and only those are left if the
// process is killed: namespaces, links and taps hang on file descriptors, and
// commands started through [NS.Command] die with their parent.
package podtest
