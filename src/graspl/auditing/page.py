"""The audit as one self-contained HTML page."""

from graspl.activations.assumptions import LayerCheck
from graspl.auditing.checks import AuditReport
from graspl.reporting.environment import heat_map, render


def render_audit(report: AuditReport) -> str:
    """Return the page as HTML text.

    Args:
        report: what was found; its text is escaped.
    """
    maps = [
        heat_map(
            "sigma 1 over ||dW||", {name: site.share for name, site in report.sites.items()}, highest=1.0
        ),
        heat_map("effective rank", {name: site.effective_rank for name, site in report.sites.items()}),
    ]
    maps += [
        heat_map(
            f"rho along {name} (mean {each.mean:.3f}, by chance {each.chance:.3f})", each.sites, highest=1.0
        )
        for name, each in report.along.items()
    ]
    maps += [
        heat_map(
            f"cosine with {name} (mean {each.cosine:.3f}; outputs shared {each.left:.3f}, by chance {each.chance:.3f})",
            {site: found.cosine for site, found in each.sites.items()},
            highest=1.0,
        )
        for name, each in report.beside.items()
    ]
    return render("audit.html", {"report": report, "maps": maps, "fields": LayerCheck._fields})
