package service

import (
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/spec"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// What an application master may say at once. How much it may have said in all is for the loop.
const (
	// MostItems is how many asks, releases and reports a request may have: the loop takes a request in one go.
	MostItems   = 500
	mostAvoided = 1000
	mostItem    = 16 << 10
	mostID      = 200
	mostWeight  = 10_000
)

// checkAllocate says what of a master's request is more than the loop can be asked to look at.
func checkAllocate(request *masterv1.AllocateRequest) error {
	items := len(request.GetAsks()) + len(request.GetRelease()) + len(request.GetInstances()) + len(request.GetGoneInstances())
	if items > MostItems {
		return invalid("a request of an application master has %d asks, releases and reports, and the most is %d; send the rest with the next one", items, MostItems)
	}
	for _, ask := range request.GetAsks() {
		if err := checkAsk(ask); err != nil {
			return err
		}
	}
	for _, report := range request.GetInstances() {
		switch {
		case proto.Size(report) > mostItem:
			return invalid("the report of an instance has %d bytes, and the most is %d", proto.Size(report), mostItem)
		case report.GetWeight() < 0 || report.GetWeight() > mostWeight:
			return invalid("instance %q has the weight %d; it is between 0 and %d", cut(report.GetId()), report.GetWeight(), mostWeight)
		}
		if err := checkID("an instance", report.GetId()); err != nil {
			return err
		}
	}
	for _, list := range [][]string{request.GetRelease(), request.GetGoneInstances()} {
		for _, name := range list {
			if err := checkID("what is given back", name); err != nil {
				return err
			}
		}
	}
	if size := proto.Size(request.GetRollout()) + proto.Size(request.GetRevert()); size > mostItem {
		return invalid("the report of a rollout has %d bytes, and the most is %d", size, mostItem)
	}
	return nil
}

func checkAsk(ask *masterv1.Ask) error {
	if err := checkID("an ask", ask.GetId()); err != nil {
		return err
	}
	placement := ask.GetPlacement()
	switch {
	case proto.Size(ask) > mostItem+mostAvoided*mostID:
		return invalid("ask %q has %d bytes, and the most is %d", cut(ask.GetId()), proto.Size(ask), mostItem)
	case ask.GetCount() < 0 || ask.GetCount() > spec.MaxInstances:
		return invalid("ask %q is for %d containers; it is for 0 to %d", cut(ask.GetId()), ask.GetCount(), spec.MaxInstances)
	case len(ask.GetAvoidNodes()) > mostAvoided:
		return invalid("ask %q avoids %d nodes, and the most is %d", cut(ask.GetId()), len(ask.GetAvoidNodes()), mostAvoided)
	case max(len(placement.GetConstraints()), len(placement.GetAffinity()), len(placement.GetAntiAffinity())) > spec.MaxList:
		return invalid("ask %q has a list of more than %d entries", cut(ask.GetId()), spec.MaxList)
	}
	return nil
}

func checkID(what, name string) error {
	if len(name) > mostID {
		return fmt.Errorf("the name of %s has %d characters, and the most is %d: %w", what, len(name), mostID, errdefs.ErrInvalidArgument)
	}
	return nil
}

// cut is what of a name fits a sentence; it may be too long itself.
func cut(name string) string { return name[:min(len(name), mostID)] }
