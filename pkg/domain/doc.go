// Package domain puts a pod's network interfaces into a libvirt domain and runs it.
//
// [Attach] is pure: the domain's XML in, the same XML with its NICs on the
// pod's taps out. It is all a launcher needs which starts the domain itself.
// [Foreign] tells what other interfaces the domain has, which may not work in a pod.
// [Interfaces] is for one that writes the XML itself, [QEMUArgs],
// [CloudHypervisorArgs] and [FirecrackerConfig] for one that does without
// libvirt.
//
// [Start] runs a domain through libvirt, and the [VM] it returns waits for it
// and ends it. It needs cgo and the build tag libvirt_dlopen: then libvirt.so.0
// is loaded when the program runs, and neither libvirt's headers nor the library
// are needed to build. A program built without them, or which finds no
// libvirt.so.0, gets an error from Start; Attach works everywhere.
//
// Nothing here touches the network itself. The taps must be there when the
// domain starts, in the network namespace of QEMU.
package domain
