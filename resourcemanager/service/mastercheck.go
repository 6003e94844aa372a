package service

import (
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/spec"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	masterv1 "github.com/mammoth-os/mammoth/proto/mammoth/master/v1"
)

// These limits apply to one request of an application master. The loop limits the total.
const (
	// MostItems is how many asks, releases, checkpoints and reports a request may have: the loop applies a request at once.
	MostItems    = 500
	maxAvoided   = 1000
	maxItemBytes = 16 << 10
	// maxAsk is how large an ask may be, with the names of the nodes that it avoids.
	maxAsk      = maxItemBytes + maxAvoided*maxIDLength
	maxIDLength = 200
	maxReason   = 1 << 10
	// mostPlanned is how many asks one request may plan: one for each role.
	mostPlanned = spec.MaxRoles
	maxWeight   = 10_000
	// maxAnswer is the size of an answer to a command. The largest is DynamicDeploy's preview of 64 roles.
	maxAnswer     = 256 << 10
	maxAnswerJSON = 1 << 20
	// maxStatus is the size of a status, which may have each reason twice: as text and in its detail.
	maxStatus     = 64 << 10
	maxStatusJSON = 256 << 10
)

// checkAllocate refuses a request that is too large for the loop.
func checkAllocate(request *masterv1.AllocateRequest) error {
	items := len(request.GetAsks()) + len(request.GetRelease()) + len(request.GetInstances()) + len(request.GetGoneInstances()) + len(request.GetCheckpoints())
	if items > MostItems {
		return invalid("a request of an application master has %d asks, releases, checkpoints and reports, but the limit is %d; send the rest with the next one", items, MostItems)
	}
	for _, ask := range request.GetAsks() {
		if err := checkAsk(ask); err != nil {
			return err
		}
	}
	for _, report := range request.GetInstances() {
		switch {
		case proto.Size(report) > maxItemBytes:
			return invalid("the report of an instance has %d bytes, but the limit is %d", proto.Size(report), maxItemBytes)
		case report.GetWeight() < 0 || report.GetWeight() > maxWeight:
			return invalid("instance %q has the weight %d; it must be between 0 and %d", truncated(report.GetId()), report.GetWeight(), maxWeight)
		case report.GetCountsAfter() != nil && (report.GetCountsAfter().CheckValid() != nil || report.GetCountsAfter().AsDuration() < 0):
			return invalid("instance %q has a counts_after that is no duration from 0 on", truncated(report.GetId()))
		}
		if err := checkID("an instance", report.GetId()); err != nil {
			return err
		}
	}
	for _, release := range request.GetRelease() {
		if err := checkID("a released container", release.GetContainerId()); err != nil {
			return err
		}
		if length := len(release.GetReason()); length > maxReason {
			return invalid("the reason of the release of %s has %d bytes, but the limit is %d", release.GetContainerId(), length, maxReason)
		}
	}
	for _, name := range request.GetCheckpoints() {
		if err := checkID("a container with a checkpoint", name); err != nil {
			return err
		}
	}
	for _, name := range request.GetGoneInstances() {
		if err := checkID("an instance", name); err != nil {
			return err
		}
	}
	if answers := request.GetAnswers(); len(answers) > MostItems {
		return invalid("a request of an application master has %d answers, but the limit is %d", len(answers), MostItems)
	}
	if notes := request.GetNotes(); len(notes) > MostItems {
		return invalid("a request of an application master has %d notes, but the limit is %d", len(notes), MostItems)
	}
	for _, note := range request.GetNotes() {
		if size := proto.Size(note); size > maxItemBytes {
			return invalid("the note on version %d has %d bytes, but the limit is %d", note.GetVersion(), size, maxItemBytes)
		}
	}
	for _, answer := range request.GetAnswers() {
		if size := proto.Size(answer); size > maxAnswer {
			return invalid("the answer to command %q has %d bytes, but the limit is %d", truncated(answer.GetId()), size, maxAnswer)
		}
		if err := checkJSON(fmt.Sprintf("the answer to command %q", truncated(answer.GetId())), answer, maxAnswerJSON); err != nil {
			return err
		}
	}
	if size := proto.Size(request.GetRevise()); size > maxItemBytes {
		return invalid("the request for an earlier version has %d bytes, but the limit is %d", size, maxItemBytes)
	}
	return checkStatus(request.GetStatus())
}

// checkStatus refuses a status that is too large, or too large as JSON.
func checkStatus(status *apiv1.MasterStatus) error {
	if status == nil {
		return nil
	}
	if size := proto.Size(status); size > maxStatus {
		return invalid("the status of an application master has %d bytes, but the limit is %d", size, maxStatus)
	}
	return checkJSON("the status of an application master", status, maxStatusJSON)
}

// checkJSON refuses a message that is too large as JSON. A small message can be large as JSON, because zero values are written too.
func checkJSON(what string, message proto.Message, most int) error {
	switch text, err := wire.JSON.Marshal(message); {
	case err != nil:
		return invalid("%s cannot be written as JSON, which people are shown: %v", what, err)
	case len(text) > most:
		return invalid("%s has %d bytes as JSON, but the limit is %d", what, len(text), most)
	}
	return nil
}

func checkAsk(ask *masterv1.Ask) error {
	if err := checkID("an ask", ask.GetId()); err != nil {
		return err
	}
	placement := ask.GetPlacement()
	switch {
	case proto.Size(ask) > maxAsk:
		return invalid("ask %q has %d bytes, but the limit is %d", truncated(ask.GetId()), proto.Size(ask), maxAsk)
	case ask.GetCount() < 0 || ask.GetCount() > spec.MaxInstances:
		return invalid("ask %q is for %d containers; it must be for 0 to %d", truncated(ask.GetId()), ask.GetCount(), spec.MaxInstances)
	case len(ask.GetAvoidNodes()) > maxAvoided:
		return invalid("ask %q avoids %d nodes, but the limit is %d", truncated(ask.GetId()), len(ask.GetAvoidNodes()), maxAvoided)
	case max(len(placement.GetConstraints()), len(placement.GetAffinity()), len(placement.GetAntiAffinity())) > spec.MaxList:
		return invalid("ask %q has a list of more than %d entries", truncated(ask.GetId()), spec.MaxList)
	}
	return nil
}

func checkID(what, name string) error {
	if len(name) > maxIDLength {
		return fmt.Errorf("the name of %s has %d characters, but the limit is %d: %w", what, len(name), maxIDLength, errdefs.ErrInvalidArgument)
	}
	return nil
}

// truncated shortens a name for a message.
func truncated(name string) string { return name[:min(len(name), maxIDLength)] }
