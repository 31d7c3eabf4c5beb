package prepare

import "github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"

// Options say how a pod interface is handed to its VM. The zero value is good.
type Options = engine.Options

// Owner is a user and a group as numbers. A negative one is nobody's.
type Owner = engine.Owner

// NameTakenError is that a link to be made for a VM can't have its name, since
// another link has it.
type NameTakenError = engine.NameTakenError

// TapMaker is the name by which the program runs itself to make a tap that has an SELinux
// label, by [MakeTap].
const TapMaker = engine.TapMaker

// MakeTap is what a program does first whose arguments begin with [TapMaker]; the others
// are given to it. It returns the exit code.
func MakeTap(args []string) int { return engine.MakeTap(args) }

// TapRole is the role of the tap among [Plan.Links] and the names in [Options].
const TapRole = engine.TapRole
