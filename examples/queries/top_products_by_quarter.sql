-- Which products sold best each quarter? Ten places by revenue (quantity times price), the newest quarter first.
-- Only paid orders count, whatever their state is now. A product that is gone stays, as `(unknown)`.
WITH sold AS (
    SELECT d."Year" AS year, d."Quarter" AS quarter,
           f."ProductID" AS product_id, coalesce(p."ProductName", '(unknown)') AS product,
           count(DISTINCT f."OrderID") AS orders, sum(f."Quantity") AS pieces, sum(f."Revenue") AS revenue
    FROM gold."FactSales" f
    JOIN gold."DimDate" d ON d."DateKey" = f."OrderDateKey"
    LEFT JOIN gold."DimProduct" p ON p."ProductID" = f."ProductID"
    WHERE f."IsPaid"
    GROUP BY 1, 2, 3, 4
),
ranked AS (
    SELECT *, rank() OVER (PARTITION BY year, quarter ORDER BY revenue DESC) AS place
    FROM sold
)
SELECT year, quarter, place, product_id, product, orders, pieces, revenue
FROM ranked
WHERE place <= 10
ORDER BY year DESC, quarter DESC, place, product_id;
