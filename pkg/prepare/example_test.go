package prepare_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// In the pod's network namespace, on a locked thread. prestart.Hook does this, and
// serves the VM too.
func ExampleApply() {
	ctx := context.Background()
	store, err := prepare.OpenStore(ctx, prepare.DefaultStateDir)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	recorded, err := store.Plans(slog.Default())
	if err != nil {
		log.Fatal(err)
	}
	o := discover.Options{}
	for _, p := range recorded { // the kernel has forgotten what these had
		o.Recorded = append(o.Recorded, p.Interface)
	}
	pod, err := discover.ReadPod(ctx, o)
	if err != nil {
		log.Fatal(err)
	}
	for _, in := range pod.Interfaces {
		plan, err := prepare.NewPlan(in, prepare.Options{})
		if err != nil {
			log.Fatal(err)
		}
		if _, _, err := prepare.Apply(ctx, slog.Default(), store, plan); err != nil {
			log.Fatal(err)
		}
		fmt.Println("a VM can be started on", plan.NIC().Tap)
	}
}
