// Package domain puts a pod's network interfaces into a libvirt domain and runs it:
//
//	xml, err = domain.Attach(xml, nics...) // the NICs are on taps that exist
//	vm, err := domain.Start(ctx, log, "qemu:///system", xml)
//	defer vm.Close()
//	err = vm.Wait(ctx) // until the guest shuts down; vm.Shutdown asks it to
//
// [Attach] is all that a launcher needs which starts the domain itself. [Foreign]
// lists the other interfaces of the domain and which of them will not work in a
// pod. [Interfaces] is for a launcher that writes the XML itself; [QEMUArgs],
// [CloudHypervisorArgs] and [FirecrackerConfig] are for one without libvirt. These
// functions only read what they are given, and may be called from any goroutine.
//
// [Start] needs cgo and the build tag libvirt_dlopen: then libvirt.so.0 is loaded
// when the program starts (the command virt-launcher-net puts that off), and neither
// libvirt's headers nor the library are needed to build. In a program built without them,
// or that finds no libvirt.so.0, Start returns an error; everything else works.
//
// The package does not touch the network. The taps must exist when the domain
// starts, in the network namespace of QEMU, which has no need to create or
// configure them: it opens each by its name, with as many queues as the NIC has.
package domain
