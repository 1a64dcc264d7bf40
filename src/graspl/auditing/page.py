"""The audit as one self-contained HTML page."""

from graspl.activations.assumptions import LayerCheck
from graspl.auditing.checks import AuditReport
from graspl.reporting.environment import heat_map, render


def render_audit(report: AuditReport) -> str:
    """Return the page as HTML text; the report's text is escaped."""
    sites = report.sites.items()
    maps = [
        heat_map("sigma 1 over ||dW||", {name: site.share for name, site in sites}, highest=1.0),
        heat_map("effective rank", {name: site.effective_rank for name, site in sites}),
    ]
    for name, each in report.along.items():
        title = f"rho along {name} (mean {each.mean:.3f}, by chance {each.chance:.3f})"
        maps.append(heat_map(title, each.sites, highest=1.0))
    for name, each in report.beside.items():
        shared = f"outputs shared {each.left:.3f}, by chance {each.chance:.3f}"
        cosines = {site: found.cosine for site, found in each.sites.items()}
        maps.append(heat_map(f"cosine with {name} (mean {each.cosine:.3f}; {shared})", cosines, highest=1.0))
    return render("audit.html", {"report": report, "maps": maps, "fields": LayerCheck._fields})
