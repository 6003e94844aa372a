package zone

import (
	"go/ast"
	"go/types"
	"slices"
	"testing"

	"github.com/mammoth-os/mammoth/internal/bordertest"
)

var parts = []bordertest.Part{
	{Types: []string{"damage", "loss"}, Files: []string{"damage.go"}, Writes: "node.unknown"},
	{Types: []string{"units"}, Files: []string{"units.go"}},
	{Types: []string{"scheduling"}, Files: []string{"scheduling.go"}},
	{Types: []string{"apps"}, Files: []string{"apps.go", "claims.go"}, Writes: "app.removed app.queueLost app.record.State app.record.Reason"},
	{Types: []string{"packages"}, Files: []string{"packages.go"}},
	{
		Types: []string{"desired", "appCounts"},
		Files: []string{"desired.go", "counts.go"},
		Writes: "app.counts app.record.Generation app.record.EndBy app.record.RestartBefore app.record.CountedAt " +
			"app.record.Outcome",
	},
	{
		Types: []string{"versions", "appStatus"},
		Files: []string{"versions.go", "status.go"},
		Writes: "app.record.Spec app.record.Version app.record.Versions app.record.Revised app.record.Status " +
			"app.record.FromVersion app.record.FromRoles",
	},
	{
		Types:  []string{"attempts", "appAttempt"},
		Files:  []string{"attempts.go", "external.go"},
		Writes: "app.record.Attempt app.record.EarlierAttempts app.record.Failures app.record.AvoidNodes app.record.RetryAt",
	},
	{Types: []string{"asks", "appAsks"}, Files: []string{"asks.go"}},
	{
		Types:  []string{"masters", "appMaster"},
		Files:  []string{"masters.go", "instances.go", "release.go", "mastercommands.go"},
		Writes: "app.instances app.record.ObservedGeneration",
	},
	{
		Types: []string{"nodes"},
		Files: []string{"nodes.go", "nodeview.go", "reports.go", "drain.go"},
		Writes: "node.inScheduler node.record.State node.record.Reason node.record.Health node.record.Attributes node.record.Drain " +
			"node.record.DrainReason node.record.Address node.record.ContainerManager node.record.Version node.record.Capacity " +
			"node.record.RegisteredAt node.record.FolderId node.record.Processes",
	},
	{Types: []string{"sessions", "nodeSession"}, Files: []string{"sessions.go", "twins.go"}},
	{Types: []string{"companions"}, Files: []string{"companions.go"}, Writes: "node.companions"},
	{
		Types: []string{"leases", "appLeases"},
		Files: []string{"leases.go", "grants.go", "targets.go"},
		Writes: "app.containers node.containers container.notice container.record.Lease container.record.Status container.record.DoneAt " +
			"container.record.Stopping container.record.StopReason container.record.StopMessage container.record.Acknowledged " +
			"container.record.Group container.record.Duration container.record.Service",
	},
	{
		Types:  []string{"views", "appView", "nodeView", "instanceView", "instanceFacts", "pace", "late", "shareViews"},
		Files:  []string{"views.go", "shown.go", "appview.go", "instanceview.go"},
		Writes: "",
	},
	{Types: []string{"waits", "appWait"}, Files: []string{"waits.go"}, Writes: "app.record.Waiting"},
	{Types: []string{"explainer"}, Files: []string{"explainer.go", "explain.go", "plan.go", "instancereason.go"}},
}

func TestNoPartSelectsTheFieldsOfAnother(t *testing.T) { bordertest.Read(t, ".").Selections(t, parts) }

// What all parts read of an app, a node and a container, one part alone changes.
func TestEachFieldOfARecordIsChangedByOnePart(t *testing.T) {
	bordertest.Read(t, ".").Changes(t, parts, "app", "node", "container")
}

// A type with more methods or fields is several things.
func TestNoTypeIsSeveralThings(t *testing.T) { bordertest.Read(t, ".").Sizes(t, nil) }

// What people look at between turns, and what is explained to them, adds nothing to the turn.
func TestReadingChangesNothing(t *testing.T) {
	source := bordertest.Read(t, ".")
	calls := map[types.Object][]types.Object{}
	var reading []types.Object
	for name, file := range source.Files {
		for _, declaration := range file.Decls {
			function, ok := declaration.(*ast.FuncDecl)
			if !ok {
				continue
			}
			of := source.Info.Defs[function.Name]
			if slices.Contains([]string{"reads.go", "explainer.go", "explain.go", "plan.go", "instancereason.go"}, name) {
				reading = append(reading, of)
			}
			ast.Inspect(function, func(node ast.Node) bool {
				if selector, ok := node.(*ast.SelectorExpr); ok && source.Info.Selections[selector] != nil {
					calls[of] = append(calls[of], source.Info.Selections[selector].Obj())
				} else if name, ok := node.(*ast.Ident); ok {
					calls[of] = append(calls[of], source.Info.Uses[name])
				}
				return true
			})
		}
	}
	reached := map[types.Object]bool{}
	for len(reading) > 0 {
		of := reading[0]
		reading = reading[1:]
		for _, called := range calls[of] {
			if function, ok := called.(*types.Func); ok && !reached[called] {
				reached[called] = true
				reading = append(reading, called)
				if slices.Contains([]string{"Emit", "Save", "Forget", "WakeBy", "touch"}, function.Name()) {
					t.Errorf("%s calls %s", of.Name(), function.Name())
				}
			}
		}
	}
	if len(reached) < 50 {
		t.Errorf("only %d functions are reached", len(reached))
	}
}
