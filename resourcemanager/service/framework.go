package service

import apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"

// completeProgram checks what a role runs: an app an image, a framework that or a program of the node.
func completeProgram(kind apiv1.AppSpec_Kind, role *apiv1.RoleSpec) error {
	if kind != apiv1.AppSpec_FRAMEWORK {
		switch {
		case role.GetImage() == "" && len(role.GetCommand()) > 0:
			return invalid("no image is named; only a framework runs a program of the node")
		case role.GetImage() == "":
			return invalid("no image is named; say NAME:TAG of one that \"mammoth image ls\" lists")
		}
		return nil
	}
	switch {
	case role.GetImage() == "" && len(role.GetCommand()) == 0:
		return invalid("neither an image, a companion nor a command is named")
	case role.GetImage() == "" && role.GetReadOnlyRoot():
		return invalid("a program of the node cannot have a read-only root")
	case role.GetPlacement().GetMaxPerNode() > 1:
		return invalid("a framework's role has one instance a node, so maxPerNode cannot be %d", role.GetPlacement().GetMaxPerNode())
	case role.GetUpdate().GetStrategy() != apiv1.UpdatePolicy_ROLLING || role.GetUpdate().GetOnce().GetStrategy() != apiv1.UpdatePolicy_ROLLING:
		return invalid("a framework is updated by rolling alone: the new instance takes over what the old one leaves on its node")
	}
	return nil
}

// completeFramework makes a role's instances follow one another on a node, never stand beside one another: they share
// a folder there, and an address that no other can listen on.
func completeFramework(role *apiv1.RoleSpec) {
	role.Placement.MaxPerNode = 1
	role.Update.MaxSurge = 0
	role.Update.MaxUnavailable = max(role.GetUpdate().GetMaxUnavailable(), 1)
}
