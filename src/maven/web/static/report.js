// The report: what it shows is in the page.
"use strict";

(function () {
  const view = JSON.parse(document.getElementById("view").textContent);
  document.getElementById("title").textContent = view.file;
  window.maven.report = window.maven.viewer(document.getElementById("viewer"), view);
})();
